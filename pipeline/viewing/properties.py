"""What a viewer shows and filters segments by: numbers of the table of measures, as Neuroglancer takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.runs.run import Run
from pipeline.shapes.measure_tables import read_table
from pipeline.shapes.organelles import hosted
from pipeline.stages.count_inside import TABLE as ORGANELLES
from pipeline.stages.write_skeletons import TABLE as SKELETONS

MOST = 200_000
"""So many segments, the largest, have properties: a browser holds them all in memory."""
CUT_BY_BORDER = "cut_by_border"


def segment_properties(run: Run) -> dict[str, Any] | None:
    """The properties of the largest segments of a run; ``None`` if it has no table of measures."""
    data = run.store.get_or_none(f"tables/{'neurons' if run.kind.name == 'neurons' else 'objects'}.parquet")
    if data is None or run.beside or run.kind.name == "mask":
        return None
    others = (run.store.get_or_none(key) for key in (ORGANELLES, SKELETONS))
    organelles, skeletons = (None if found is None else read_table(found) for found in others)
    return properties_of(read_table(data), organelles=organelles, skeletons=skeletons)


def properties_of(
    table: Mapping[str, np.ndarray],
    most: int = MOST,
    organelles: Mapping[str, np.ndarray] | None = None,
    skeletons: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Segment properties of the ``most`` largest, the largest first, of equal ones the smaller id first.

    table: columns of the table of objects, each (n,). organelles, skeletons: those of these tables,
    if there are any; a segment without skeleton has length 0.
    """
    order = np.lexsort((table["id"], -table["voxels"]))[:most]
    column = {name: values[order] for name, values in table.items()}
    inside = {} if organelles is None else hosted(organelles, column["id"])
    return {
        "@type": "neuroglancer_segment_properties",
        "inline": {
            "ids": list(map(str, column["id"].tolist())),
            "properties": [
                _number("voxels", "voxels", column["voxels"]),
                _number("volume_um3", "volume in cubic micrometres", column["volume_nm3"] / 1e9),
                _number("surface_um2", "surface in square micrometres, of voxel faces", column["surface_nm2"] / 1e6),
                *([] if skeletons is None else [_length(column["id"], skeletons)]),
                *(_number(name, f"{name} of which most is inside", counts) for name, counts in inside.items()),
                {
                    **{"id": "tags", "type": "tags", "tags": [CUT_BY_BORDER]},
                    "values": [[0] if cut else [] for cut in column["touches_border"].tolist()],
                },
            ],
        },
    }


def _length(ids: np.ndarray, skeletons: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The path length of each segment; ids are uint64 (n,)."""
    lengths = dict(zip(skeletons["id"].tolist(), skeletons["path_length_nm"].tolist(), strict=True))
    found = np.array([lengths.get(name, 0.0) for name in ids.tolist()])
    return _number("length_um", "path length of the skeleton in micrometres", found / 1e3)


def _number(name: str, words: str, values: np.ndarray) -> dict[str, Any]:
    plain = values.astype(np.float32).tolist()
    return {"id": name, "type": "number", "description": words, "data_type": "float32", "values": plain}
