"""Skeletons of tubes, rings and pieces: their lengths and radii, and the same bytes in any chunking."""

import numpy as np
import pytest

from pipeline.geometry import BoundingBox, Vec
from pipeline.shapes.skeleton_files import swc
from tests.shapes.skeletonized import START, Skeletonized, torus, tube, tubes

SIDE = 72
NM = (32.0, 32.0, 32.0)


def labelled(*shapes):
    """Labels 1, 2, ... of these shapes."""
    found = np.zeros(shapes[0].shape, np.uint64)
    for number, shape in enumerate(shapes, 1):
        found[shape] = number
    return found


def several(side=SIDE):
    """A bent tube that branches, a ring, two pieces of one label, a grain, and a tube along the edge of blocks."""
    shape = (side, side, side)
    bent = tubes(shape, ((8, 8, 8), (30, 20, 40), (60, 64, 62)), 128, NM)
    branch = tubes(shape, ((30, 20, 40), (64, 12, 50)), 96, NM)
    ring = torus(shape, (20, 46, 26), 14, 4)
    along = tube(shape, (61, 59, 4), (61, 59, 40), 110, NM)
    grain = np.zeros(shape, bool)
    grain[4, 68, 68] = True
    pieces = tube(shape, (4, 60, 56), (20, 64, 66), 70, NM) | tube(shape, (44, 6, 4), (66, 8, 20), 90, NM)
    return labelled(bent | branch, ring, along, grain, pieces)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Skeletonized(tmp_path_factory.mktemp("run"), several(), (32, 32, 32)).run()


@pytest.mark.parametrize("chunk", [(72, 72, 72), (24, 40, 16)])
def test_chunks_change_no_byte(made, tmp_path, chunk):
    """Other chunks, another order, and chunks computed twice give the same files, to the byte."""
    assert Skeletonized(tmp_path, several(), chunk).run(twice=3).files() == made.files()


def test_coarser_voxels_change_no_byte_either(tmp_path):
    """The same holds where the skeletons are those of labels at half the resolution, with odd sizes and offsets."""
    labels, nm = several(), (16.0, 8.0, 8.0)
    runs = [
        Skeletonized(tmp_path / str(chunk[0]), labels, chunk, nm=nm, voxel_nm=16.0, block=16).run()
        for chunk in ((72, 72, 72), (24, 40, 16))
    ]
    assert tuple(runs[0].extract.lattice.factor) == (1, 2, 2)
    assert runs[0].files() == runs[1].files()
    assert set(runs[0].table()["id"]) == {1, 2, 3, 4, 5}


LINES = {
    "along x, in the middle of blocks": ((43, 45, 6), (43, 45, 66)),
    "on the edge between four blocks": ((61, 59, 6), (61, 59, 66)),
    "a voxel beside a face": ((60, 45, 6), (60, 45, 66)),
    "diagonal": ((8, 8, 8), (64, 64, 64)),
    "oblique": ((12, 20, 6), (58, 60, 66)),
    "nearly along x": ((50, 40, 6), (56, 43, 66)),
}


@pytest.mark.parametrize("nm", [NM, (40.0, 16.0, 16.0)], ids=["isotropic", "anisotropic"])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_lengths_of_tubes(tmp_path, line, nm):
    """A tube across blocks and chunks has one branch of the right length within 5 %.

    It goes from cap to cap; where an end lies at an edge of blocks it may begin up to a radius later.
    """
    radius = 5 * min(nm)
    labels = labelled(tube((SIDE, SIDE, SIDE), *line, radius, nm))
    made = Skeletonized(tmp_path, labels, (32, 32, 32), nm=nm).run()
    found = made.skeleton(1)
    whole = np.linalg.norm(np.subtract(*line) * np.array(nm)) + 2 * radius
    short = 2 * radius if line == LINES["on the edge between four blocks"] else 0
    assert 0.95 * (whole - short) < found.path_length_nm < 1.05 * whole
    assert sorted(np.unique(found.degrees)) == [1, 2]
    assert (found.degrees == 1).sum() == 2
    assert np.median(found.radii_nm) == pytest.approx(radius, rel=0.1)
    middle = (np.array(line[0]) + START + 0.5) * nm, (np.array(line[1]) + START + 0.5) * nm
    ends = [np.linalg.norm(found.places_nm - end, axis=1) for end in middle]
    inner = found.places_nm[np.minimum(*ends) > 2 * radius]
    assert distances(inner, *middle).max() <= max(nm)


def distances(places, start, stop):
    """Of places from the line between two points."""
    way = (stop - start) / np.linalg.norm(stop - start)
    return np.linalg.norm(np.cross(places - start, way), axis=1)


def test_a_tube_that_the_region_cuts_ends_at_its_border(tmp_path):
    """The cut is no surface: the skeleton reaches the last voxel, and radii are those of the tube up to there."""
    labels = labelled(tube((40, 40, SIDE), (20, 20, -20), (20, 20, SIDE + 20), 160, NM))
    found = Skeletonized(tmp_path, labels, (32, 32, 32)).run().skeleton(1)
    assert found.path_length_nm == pytest.approx((SIDE - 1) * 32, rel=0.05)
    assert found.places_nm[:, 2].max() == (START.x + SIDE - 0.5) * 32
    assert (found.radii_nm > 150).mean() > 0.9


def test_a_ring_becomes_one_open_line(made):
    """A loop is opened at one place, so that every piece is a tree."""
    found = made.skeleton(2)
    assert (found.parents < 0).sum() == 1
    assert (found.degrees == 1).sum() <= 3
    reach = 1.5 * 4 * 32 + 150
    assert 2 * np.pi * 14 * 32 - 2 * reach < found.path_length_nm < 1.05 * 2 * np.pi * 14 * 32


def test_a_grain_is_one_vertex_and_pieces_are_trees(made):
    """A segment of one voxel has one vertex in its centre; a segment in two pieces has two trees."""
    grain, pieces = made.skeleton(4), made.skeleton(5)
    assert np.array_equal(grain.places_nm, [(np.array([4, 68, 68]) + START + 0.5) * 32])
    assert (len(grain.edges), grain.radii_nm.tolist()) == (0, [32.0])
    assert (pieces.parents < 0).sum() == 2


def test_the_table_has_a_row_for_each_skeleton(made):
    """Rows are in the order of ids, and say what the skeletons are."""
    table = made.table()
    assert table["id"].tolist() == [1, 2, 3, 4, 5]
    assert table["path_length_nm"].tolist() == [made.skeleton(name).path_length_nm for name in range(1, 6)]
    assert table["trees"].tolist() == [1, 1, 1, 1, 2]
    assert (table["ends"][0], table["branch_points"][0]) == (3, 1)
    assert table["largest_radius_nm"][0] == made.skeleton(1).radii_nm.max()


def test_small_segments_have_none_whatever_the_chunks_are(tmp_path):
    """Only voxels decide, also of segments that several chunks see in part."""
    voxels = np.bincount(several().reshape(-1).astype(np.int64))
    for number, chunk in enumerate(((72, 72, 72), (24, 40, 16))):
        made = Skeletonized(tmp_path / str(number), several(), chunk, smallest=int(voxels[3])).run()
        assert set(made.table()["id"]) == {name for name in range(1, 6) if voxels[name] >= voxels[3]}


def test_a_region_of_interest_counts_as_the_whole_volume(tmp_path):
    """A part of a dataset has skeletons within it alone."""
    roi = BoundingBox.from_shape((64, 68, 40), START + Vec(6, 4, 10))
    found = Skeletonized(tmp_path, several(), (32, 32, 32), roi=roi).run().skeleton(1)
    low, high = found.places_nm.min(axis=0) / 32, found.places_nm.max(axis=0) / 32
    assert (low >= np.array(roi.start)).all()
    assert (high <= np.array(roi.stop)).all()


def test_cloud_volume_reads_them(made):
    """Vertices in nanometres, x y z, edges and radii are those that were written."""
    found, mine = made.open().get(1), made.skeleton(1)
    order = np.lexsort(mine.places_nm.T)
    assert len(found.vertices) == len(mine.places_nm)
    assert np.allclose(found.vertices[np.lexsort(found.vertices[:, ::-1].T)], mine.places_nm[order][:, ::-1])
    assert float(found.cable_length()) == pytest.approx(mine.path_length_nm, rel=1e-5)
    assert np.allclose(np.sort(found.radius), np.sort(mine.radii_nm))


def test_swc_has_parents_before_children_in_micrometres(made):
    """Each line has its number, a place and a radius in micrometres, and a parent that stands before it."""
    mine = made.skeleton(5)
    rows = [line.split() for line in swc(5, mine).splitlines() if not line.startswith("#")]
    numbers, parents = [int(row[0]) for row in rows], [int(row[6]) for row in rows]
    assert numbers == list(range(1, len(mine.parents) + 1))
    assert all(parent == -1 or parent < number for number, parent in zip(numbers, parents, strict=True))
    assert parents.count(-1) == 2
    values = np.array([[float(value) for value in row[2:6]] for row in rows])
    assert np.allclose(values[:, :3], mine.places_nm[:, ::-1] / 1000, atol=1e-4)
    assert np.allclose(values[:, 3], mine.radii_nm / 1000, atol=1e-4)
