"""Read a dataset of ``petaseg export --to webknossos`` with WEBKNOSSOS' own library, and compare it with the tables.

    petaseg export RUN dataset --to webknossos
    petaseg export RUN tables --to parquet
    python -m venv /tmp/wk && /tmp/wk/bin/pip install webknossos==4.3.3 pyarrow
    /tmp/wk/bin/python tests/handover/with_webknossos.py dataset tables

It is no part of the test suite, since that library needs another release of click than petaseg's own tools do. Run it
after a change of ``pipeline/handover/webknossos.py`` or ``pipeline/volumes/webknossos.py``.
"""

import sys
import tempfile

import networkx
import numpy as np
import pyarrow.parquet as pq
import webknossos
from upath import UPath
from webknossos.dataset._utils.tensorstore_helpers import read_zarr3_array
from webknossos.dataset.layer.segmentation_layer.attachments.agglomerate_attachment import AgglomerateAttachment

ARRAYS = [f"agglomerate_to_{name}" for name in ("segments", "segments_offsets", "edges", "edges_offsets")]
ARRAYS += ["segment_to_agglomerate", "agglomerate_to_positions", "agglomerate_to_affinities"]


def main(dataset: str, tables: str) -> None:
    """Raise ``AssertionError`` where the two differ."""
    supervoxels, contacts = (pq.read_table(f"{tables}/{name}.parquet") for name in ("supervoxels", "contacts"))
    ids, segment = supervoxels["id"].to_numpy(), supervoxels["segment"].to_numpy()
    layer = webknossos.Dataset.open(dataset).get_layer("segmentation")
    (attachment,) = layer.attachments.agglomerates
    graph = attachment.to_graph()
    assert sorted(graph.nodes) == list(range(1, len(ids) + 1)), "segments are 1 .. n"
    for component in networkx.connected_components(graph):
        (neuron,) = {segment[name - 1] for name in component}
        assert len(component) == (segment == neuron).sum(), "an agglomerate is a neuron"
    a, b = (np.searchsorted(ids, contacts[name].to_numpy()) for name in "ab")
    for u, v, score in zip(a, b, contacts["score"].to_numpy(), strict=True):
        if segment[u] == segment[v]:
            assert graph.edges[u + 1, v + 1]["affinity"] == np.float32(score), "an edge is a contact"
    voxels = layer.get_mag("1")
    for name, node in graph.nodes(data=True):
        assert voxels.read(absolute_offset=node["position"], size=(1, 1, 1)).item() == name, "a position is inside"
    with tempfile.TemporaryDirectory() as folder:
        AgglomerateAttachment.create(f"{folder}/again", graph, segmentation_dtype=layer.dtype)
        for name in ARRAYS:
            mine, theirs = (read_zarr3_array(UPath(place) / name) for place in (attachment.path, f"{folder}/again"))
            assert mine.dtype == theirs.dtype, name
            assert np.array_equal(mine, theirs), "their writer stores the same arrays"
    print(f"{len(ids)} segments, {graph.number_of_edges()} edges: all as in the tables")


if __name__ == "__main__":
    main(*sys.argv[1:])
