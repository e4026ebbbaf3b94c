"""Meshes are closed, have the volume of their voxels, and are the same bytes whatever the chunks are."""

import json
from itertools import pairwise

import DracoPy
import numpy as np
import pytest
from cloudvolume.datasource.precomputed.sharding import ShardingSpecification

from pipeline.geometry import Vec
from pipeline.shapes import shards
from pipeline.shapes.lattice import BLOCK
from pipeline.shapes.meshing import Mesh
from pipeline.shapes.multilod import BITS, encode_fragment, z_order
from tests.shapes.meshed import NM, START, Meshed, is_watertight, sphere, tube, volume

SHAPE = (100, 90, 140)
SPHERE, THICK, THIN, CORNER, SMALL = 7, 2**40 + 5, 11, 12, 13
NEURONS = (SPHERE, THICK, THIN, CORNER)


def neurons():
    """A sphere, two tubes and a ball in the corner of the volume, all across faces of blocks; and a small object."""
    labels = np.zeros(SHAPE, np.uint64)
    labels[sphere(SHAPE, (60, 58, 58), 30)] = SPHERE
    labels[tube(SHAPE, (10, 10, 10), (90, 20, 130), 8)] = THICK
    labels[tube(SHAPE, (5, 80, 5), (95, 70, 120), 4)] = THIN
    labels[sphere(SHAPE, (99, 89, 139), 20)] = CORNER
    labels[48:52, 2:5, 60:63] = SMALL
    return labels


@pytest.fixture(scope="module")
def meshed(tmp_path_factory):
    """Meshes of all neurons of at least 100 voxels."""
    return Meshed(tmp_path_factory.mktemp("meshed"), neurons(), (64, 64, 64), smallest=100).run()


@pytest.mark.parametrize("segment", NEURONS)
@pytest.mark.parametrize("lod", [0, 1])
def test_meshes_are_watertight(meshed, segment, lod):
    """Every edge has two triangles, in opposite directions, across blocks, chunks and the border of the volume."""
    assert is_watertight(*meshed.mesh(segment, lod))


@pytest.mark.parametrize("segment", NEURONS)
@pytest.mark.parametrize("lod", [0, 1])
def test_meshes_have_the_volume_of_their_voxels(meshed, segment, lod):
    """The volume is positive, so triangles turn outward, and within 5 % of the voxels of its level of the labels."""
    expected = int((meshed.voxels[lod] == segment).sum()) * (NM[0] * 2**lod) ** 3
    assert volume(*meshed.mesh(segment, lod)) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("lod", [0, 1])
def test_meshes_lie_where_the_voxels_are(meshed, lod):
    """The box of a mesh is that of the voxels, in global nanometres, to two voxels of its level."""
    vertices, _ = meshed.mesh(SPHERE, lod)
    places = np.argwhere(meshed.labels == SPHERE) + START
    low, high = places.min(0)[::-1] * NM[0], (places.max(0)[::-1] + 1) * NM[0]
    assert vertices.min(0) == pytest.approx(low, abs=2 * NM[0] * 2**lod)
    assert vertices.max(0) == pytest.approx(high, abs=2 * NM[0] * 2**lod)


@pytest.mark.parametrize("chunk", [(32, 32, 32), (40, 24, 96), (100, 90, 140)])
def test_chunks_change_no_byte(meshed, tmp_path, chunk):
    """Other chunk shapes, another order, and chunks that are computed again after a kill give the same files."""
    other = Meshed(tmp_path, meshed.labels, chunk, smallest=100).run(twice=5)
    assert other.files() == meshed.files()


def test_small_segments_have_no_mesh(meshed, tmp_path):
    """A segment of fewer voxels than the smallest has none, whether a chunk holds all of it or two chunks share it."""
    assert meshed.open().get_manifest(SMALL) is None
    count = int((meshed.labels == SMALL).sum())
    halves = Meshed(tmp_path / "more", meshed.labels, (25, 45, 140), smallest=count + 1).run()
    enough = Meshed(tmp_path / "enough", meshed.labels, (25, 45, 140), smallest=count).run()
    assert halves.open().get_manifest(SMALL) is None
    assert enough.open().get_manifest(SMALL) is not None


def test_many_shards_hold_all_neurons(tmp_path, monkeypatch):
    """Neurons are found in the shard that the hash of their id names, and each shard's file is written."""
    monkeypatch.setattr(shards, "VOXELS_PER_SHARD", 100_000)
    meshed = Meshed(tmp_path, neurons(), (64, 64, 64)).run()
    assert len(meshed.files()) == 1 + 16
    assert all(len(meshed.mesh(segment)[1]) for segment in (*NEURONS, SMALL))


def test_the_hash_is_that_of_the_format():
    """Shard and minishard of each id are those that cloud-volume computes."""
    ids = np.concatenate([np.arange(40), np.random.default_rng(0).integers(0, 2**63, 100)]).astype(np.uint64)
    for bits in (0, 3, 9):
        ours, theirs = shards.Sharding(bits), ShardingSpecification.from_dict(shards.Sharding(bits).specification())
        found = [ours.file_name(shard) for shard in ours.shard_of(ids).tolist()]
        assert found == [f"{theirs.compute_shard_location(each).shard_number}.shard" for each in ids]


def manifests(meshed):
    source = meshed.open()
    return {segment: source.get_manifest(segment) for segment in NEURONS}


def test_the_octree_has_every_parent_in_z_order(meshed):
    """Each fragment lies in one of the next level, also if that is empty, and the last level of a neuron has one."""
    for manifest in manifests(meshed).values():
        levels = [[tuple(map(int, place)) for place in level] for level in manifest.fragment_positions]
        for fine, coarse in pairwise(levels):
            assert {(x >> 1, y >> 1, z >> 1) for x, y, z in fine} <= set(coarse)
        for level in levels:
            assert level == sorted(level, key=lambda place: z_order(place[::-1]))
        assert len(levels[-1]) == 1 or len(levels) == 2


@pytest.mark.parametrize(("early", "late"), [((0, 0, 1), (0, 1, 0)), ((0, 1, 1), (1, 0, 0)), ((1, 1, 0), (2, 0, 0))])
def test_z_order_interleaves_the_axes(early, late):
    """Of the highest bits that differ, that of z decides, then y, then x."""
    assert z_order(early) < z_order(late)


def test_no_triangle_crosses_an_octant(meshed):
    """A fragment above the finest level can be cut at its middle without cutting a triangle, as viewers do."""
    middle, seen = 1 << (BITS - 1), 0
    for data in fragments(meshed, SPHERE, 1):
        mesh = DracoPy.decode(data)
        corners = mesh.points[mesh.faces].astype(int)
        assert ((corners <= middle).all(1) | (corners >= middle).all(1)).all()
        seen += len(corners)
    assert seen > 1000


def test_fragments_hold_exact_numbers():
    """Vertices are whole numbers of as many bits as the info says, x, y, z, after Draco's rounding, too."""
    vertices = np.array([[0, 1.5, 64], [31.5, 0.5, 32], [7, 64, 0]], np.float32)
    data = encode_fragment(Mesh(vertices, np.array([[0, 1, 2]], np.uint32)), Vec(64, 64, 64))
    found = DracoPy.decode(data).points
    expected = np.floor(vertices.astype(float) * 1023 / 64 + 0.5)[:, ::-1]
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))


def fragments(meshed, segment, lod):
    """The encoded fragments of a neuron at a level, from the stored parts."""
    from pipeline.shapes.fragments import Fragments
    from pipeline.storage.arrays import unpack_arrays

    for chunk in meshed.extract.grids()[0]:
        part = meshed.extract.load(chunk)
        for name, data in part.items():
            for piece in Fragments.from_arrays(unpack_arrays(data.tobytes(), name)):
                if (piece.segment, piece.level) == (segment, lod):
                    yield piece.data


def test_labels_that_touch_at_corners_only_have_closed_meshes(tmp_path):
    """Noise, of which every voxel is a case of its own, gives as many edges in one direction as in the other."""
    labels = np.random.default_rng(1).integers(0, 3, (20, 20, 70)).astype(np.uint64)
    meshed = Meshed(tmp_path, labels, (20, 20, 35), levels=1, start=Vec(50, 60, 10)).run()
    for segment in (1, 2):
        vertices, faces = meshed.mesh(segment)
        names = np.unique(vertices, axis=0, return_inverse=True)[1].reshape(-1)[faces]
        flow = np.concatenate([names[:, [0, 1]], names[:, [1, 2]], names[:, [2, 0]]])
        there, back = np.unique(flow, axis=0, return_counts=True), np.unique(flow[:, ::-1], axis=0, return_counts=True)
        assert all(np.array_equal(a, b) for a, b in zip(there, back, strict=True))


def test_the_info_states_the_format(meshed):
    """Vertices are stored in voxels, and the transform makes nanometres of them."""
    info = json.loads(meshed.files()["info"])
    assert info["@type"] == "neuroglancer_multilod_draco"
    assert info["vertex_quantization_bits"] == BITS
    assert info["transform"] == [8, 0, 0, 0, 0, 8, 0, 0, 0, 0, 8, 0]
    assert BLOCK % 2 == 0, "octants need a middle"
