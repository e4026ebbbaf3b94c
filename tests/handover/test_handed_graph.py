"""``petaseg export --to pychunkedgraph``: files that are read back after the format's documentation.

PyChunkedGraph itself needs graph-tool and Google Cloud, and its release on PyPI is older than the format. So messages
are decoded here field by field, and supervoxels, edges and components compared with plain loops over voxels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudvolume
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.handover import hand_over
from pipeline.handover.chunk_ids import ChunkIds
from pipeline.handover.chunk_messages import varint
from pipeline.runs.run import Run
from tests.handover.handed import affinities, handed_run, voxels
from tests.runs import petaseg, run

CHUNK = Vec(8, 10, 9)
COUNTS = (3, 3, 3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(handed_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def handed(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("out") / "graph"
    done = petaseg("export", finished.url, place, "--to", "pychunkedgraph", "--graph-chunk", "8,10,9")
    assert done.returncode == 0, done.stderr
    names = {"watershed", "edges", "components", "nodes.parquet", "config.yml"}
    assert {path.name for path in place.iterdir()} == names
    return place


def layer(handed: Path) -> np.ndarray:
    """The cut supervoxels, (z, y, x)."""
    read = cloudvolume.CloudVolume(f"file://{handed / 'watershed'}", progress=False, fill_missing=True)
    return np.asarray(read[:])[..., 0].T


def number(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data: bytes) -> dict[int, bytes]:
    """The length-delimited fields of a message."""
    found, at = {}, 0
    while at < len(data):
        tag, at = number(data, at)
        assert tag & 7 == 2
        length, at = number(data, at)
        found[tag >> 3], at = data[at : at + length], at + length
    return found


def edges(handed: Path, chunk: tuple[int, int, int]) -> dict[str, dict[tuple[int, int], tuple[float, int]]]:
    """The edges of a chunk (x, y, z): kind -> pair of ids -> affinity and area."""
    path = handed / "edges" / f"edges_{'_'.join(map(str, chunk))}.proto.zst"
    message = fields(zstandard.ZstdDecompressor().decompress(path.read_bytes()))
    found = {}
    for key, kind in ((1, "in"), (2, "cross"), (3, "between")):
        parts = fields(message.get(key, b""))
        types = ("<u8", "<u8", "<f4", "<u8")
        a, b, affinity, area = (
            np.frombuffer(parts.get(i, b""), kind_of).tolist() for i, kind_of in enumerate(types, 1)
        )
        assert len(a) == len(b) == len(affinity) == len(area)
        found[kind] = dict(zip(zip(a, b, strict=True), zip(affinity, area, strict=True), strict=True))
        assert len(found[kind]) == len(a)
        assert list(found[kind]) == sorted(found[kind])
    return found


def components(handed: Path, chunk: tuple[int, int, int]) -> list[list[int]]:
    data = fields((handed / "components" / f"components_{'_'.join(map(str, chunk))}.proto").read_bytes())[1]
    numbers, at = [], 0
    while at < len(data):
        value, at = number(data, at)
        numbers.append(value)
    groups = []
    while numbers:
        size, *numbers = numbers
        groups.append(numbers[:size])
        numbers = numbers[size:]
    return groups


def chunks() -> Iterator[tuple[int, int, int]]:
    """All chunks, x y z."""
    return ((x, y, z) for x in range(COUNTS[2]) for y in range(COUNTS[1]) for z in range(COUNTS[0]))


def place_of(name: int) -> tuple[int, int, int]:
    """The chunk in an id, x y z: 8 bits of layer, 10 for each place, 26 of counter."""
    assert name >> 56 == 1
    return name >> 46 & 1023, name >> 36 & 1023, name >> 26 & 1023


def test_supervoxels_are_cut_at_chunks(finished: Run, handed: Path) -> None:
    """A voxel's id names its chunk, and within a chunk, ids number the supervoxels in their order from 1."""
    cut, ids = layer(handed), voxels(finished, "supervoxels")
    assert np.array_equal(cut > 0, ids > 0)
    for x, y, z in chunks():
        box = tuple(slice(i * side, (i + 1) * side) for i, side in zip((z, y, x), CHUNK, strict=True))
        own = np.unique(ids[box][ids[box] > 0])
        expected = (1 << 56 | x << 46 | y << 36 | z << 26) + np.searchsorted(own, ids[box]) + 1
        assert np.array_equal(cut[box], np.where(ids[box] > 0, expected, 0))


def test_edges_are_the_contacts_of_cut_supervoxels(finished: Run, handed: Path) -> None:
    """Each pair within a chunk once, each pair across a face in both chunks; sums of affinities, and faces."""
    cut, ids = layer(handed), voxels(finished, "supervoxels")
    expected: dict[str, dict[tuple[int, int], list[int]]] = {"in": {}, "between": {}, "cross": {}}
    roi = finished.layout.roi
    near = affinities()[(slice(None), *roi.slices(finished.layout.bounds.start))]
    for axis in range(3):
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        a, b = cut[low], cut[high]
        for at in zip(*np.nonzero((a != b) & (a > 0) & (b > 0)), strict=True):
            pair = int(min(a[at], b[at])), int(max(a[at], b[at]))
            same = place_of(pair[0]) == place_of(pair[1])
            kind = "in" if same else "cross" if ids[low][at] == ids[high][at] else "between"
            for ordered in (pair,) if same else (pair, pair[::-1]):
                expected[kind].setdefault(ordered, []).append(int(near[axis][high][at]))
    found: dict[str, Any] = {"in": {}, "between": {}, "cross": {}}
    for chunk in chunks():
        for kind, pairs in edges(handed, chunk).items():
            assert all(place_of(own) == chunk for own, _ in pairs), "the first end lies in the chunk"
            found[kind].update(pairs)
    for kind in ("in", "between"):
        assert found[kind].keys() == expected[kind].keys(), kind
        assert len(found[kind]) > 500
        for pair, values in expected[kind].items():
            assert found[kind][pair] == (struct.unpack("f", struct.pack("f", sum(values) / 255))[0], len(values))
    assert found["cross"].keys() == expected["cross"].keys()
    assert set(found["cross"].values()) == {(float("inf"), 1)}


def test_components_are_neurons_of_a_chunk_and_its_neighbours(finished: Run, handed: Path) -> None:
    """Every id of a chunk, and every other end of its edges, stands in one group with those of its neuron."""
    cut, labels = layer(handed), voxels(finished, "labels")
    neuron = dict(zip(cut.ravel().tolist(), labels.ravel().tolist(), strict=True))
    for chunk in chunks():
        found, known = components(handed, chunk), edges(handed, chunk)
        names = {name for name in neuron if name and place_of(name) == chunk}
        names |= {other for kind in ("between", "cross") for _, other in known[kind]}
        assert sorted(name for group in found for name in group) == sorted(names)
        assert len({neuron[group[0]] for group in found}) == len(found)
        assert all(len({neuron[name] for name in group}) == 1 for group in found)


def test_nodes_lead_back_to_the_run(finished: Run, handed: Path) -> None:
    """The table has each id of the layer once, in their order, with its supervoxel and its neuron."""
    table = pq.read_table(handed / "nodes.parquet")
    triples = {
        tuple(map(int, row))
        for row in zip(
            *(each.ravel() for each in (layer(handed), voxels(finished, "supervoxels"), voxels(finished, "labels"))),
            strict=True,
        )
        if row[0]
    }
    columns = (table[name].to_pylist() for name in ("id", "supervoxel", "segment"))
    assert list(zip(*columns, strict=True)) == sorted(triples)


def test_the_configuration_of_the_ingest_fits_the_files(handed: Path) -> None:
    config = yaml.safe_load((handed / "config.yml").read_text())
    graph = {"CHUNK_SIZE": [9, 10, 8], "FANOUT": 2, "LAYER_ID_BITS": 8, "SPATIAL_BITS": 10}
    assert config["graph_config"] == graph
    assert all((handed / config["data_source"][name]).is_dir() for name in ("EDGES", "COMPONENTS", "WATERSHED"))


def test_the_files_do_not_depend_on_the_chunks_of_the_run(handed: Path, tmp_path: Path) -> None:
    """Another chunk shape of the run gives the same bytes."""
    other = run(handed_run(tmp_path / "run", (7, 24, 9)))
    hand_over(other, str(tmp_path / "graph"), "pychunkedgraph", graph_chunk=CHUNK)
    for path in (path for path in handed.rglob("*") if path.is_file()):
        assert (tmp_path / "graph" / path.relative_to(handed)).read_bytes() == path.read_bytes(), path


def test_affinities_between_sections_that_do_not_count_are_0(tmp_path: Path) -> None:
    """In a run whose sections are apart, contacts between sections have area and no affinity."""
    rules = {"threshold": 0.3, "filter_width": 1, "mode": "section"}
    finished = run(handed_run(tmp_path, supervoxels=rules, agglomeration={"across_sections": False}))
    hand_over(finished, str(tmp_path / "graph"), "pychunkedgraph", graph_chunk=Vec(8, 100, 100))
    for z in range(COUNTS[0]):
        between = edges(tmp_path / "graph", (0, 0, z))["between"]
        assert len(between) > 100
        assert {affinity for affinity, _ in between.values()} == {0.0}


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (Vec(4, 64, 64), "--graph-chunk is .* sides are at least 8 voxels: choose longer ones"),
        (Vec(8, 8, 8), "makes .* chunks, and ids of the graph have room for 1024 along each axis: choose longer sides"),
    ],
)
def test_chunks_for_which_ids_have_no_bits_are_refused(shape: Vec, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ChunkIds.of(BoundingBox.from_shape((8, 8, 8193)), shape)


def test_more_supervoxels_than_ids_have_bits_for_are_refused() -> None:
    ids = ChunkIds.of(BoundingBox.from_shape((800, 800, 800)), Vec(512, 512, 512))
    ids.check_count((0, 0, 0), 2**26 - 1)
    with pytest.raises(ConfigError, match="has 67,108,864 supervoxels, and ids have room for 67,108,863: choose sho"):
        ids.check_count((0, 0, 0), 2**26)


def test_varints_are_those_of_protocol_buffers() -> None:
    """Examples of the documentation, and the largest id."""
    assert varint(1) == b"\x01"
    assert varint(150) == b"\x96\x01"
    assert varint(2**64 - 1) == b"\xff" * 9 + b"\x01"
    assert number(varint(2**63 + 5), 0) == (2**63 + 5, 10)


def test_the_option_is_for_this_format_alone(finished: Run, tmp_path: Path) -> None:
    refused = petaseg("export", finished.url, tmp_path / "no", "--to", "parquet", "--graph-chunk", "64")
    assert refused.returncode != 0
    assert "--graph-chunk is for --to pychunkedgraph" in " ".join(refused.stderr.split())
