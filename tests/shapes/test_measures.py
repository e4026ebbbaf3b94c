"""Measures of objects are those of numpy and scikit-image on the whole, and add up over any boxes."""

from collections import defaultdict
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops

from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import Chunk, ChunkGrid
from pipeline.shapes.measure_tables import OBJECTS, in_ranges, table_of_contacts, table_of_objects, to_parquet
from pipeline.shapes.measures import Measures, measure

START = Vec(7, -3, 11)


def blobs(seed: int, shape: tuple[int, int, int] = (9, 11, 10)) -> np.ndarray:
    """Objects in several pieces, with background and large ids."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 7, [n // 3 + 1 for n in shape])
    ids = np.array([0, 3, 9, 1 << 40, (1 << 40) + 1, (1 << 63) + 5, 77], np.uint64)
    fine = np.kron(coarse, np.ones((3, 3, 3), int))[tuple(slice(n) for n in shape)]
    return ids[np.where(rng.random(shape) < 0.1, rng.integers(0, 7, shape), fine)]


def whole(labels: np.ndarray) -> Measures:
    box = BoundingBox.from_shape(Vec(*labels.shape), START)
    return measure(labels, box, box)


def by_hand(labels: np.ndarray) -> tuple[dict[Any, np.ndarray], dict[Any, np.ndarray], dict[Any, list[Any]]]:
    """Faces to others, faces on the border, and twice the centres of the faces of each contact; voxel by voxel."""
    faces, border = defaultdict(lambda: np.zeros(3, int)), defaultdict(lambda: np.zeros(3, int))
    contacts = defaultdict(list)
    for place in product(*map(range, labels.shape)):
        own = int(labels[place])
        for axis, step in product(range(3), (-1, 1)):
            other = tuple(n + step * (k == axis) for k, n in enumerate(place))
            if not 0 <= other[axis] < labels.shape[axis]:
                border[own][axis] += 1
            elif (there := int(labels[other])) != own:
                faces[own][axis] += 1
                if own and there and own < there:
                    contacts[own, there].append((axis, *(a + b for a, b in zip(place, other, strict=True))))
    return faces, border, contacts


def same(one: Measures, other: Measures) -> bool:
    """True if all arrays have the same type, shape and bytes."""
    pairs = zip(one.to_arrays("").values(), other.to_arrays("").values(), strict=True)
    return all((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) for a, b in pairs)


@pytest.mark.parametrize("seed", range(4))
def test_voxels_boxes_and_centres_are_those_of_scikit_image(seed):
    """Voxels, bounding box and centre of mass are those of regionprops, in global voxels."""
    labels = blobs(seed)
    found = whole(labels)
    ids, small = np.unique(labels, return_inverse=True)
    assert np.array_equal(found.ids, ids[ids > 0])
    for row, region in enumerate(regionprops(small.reshape(labels.shape))):
        assert found.voxels[row] == region.num_pixels
        assert (*found.low[row], *(found.high[row] + 1)) == (*(START + region.bbox[:3]), *(START + region.bbox[3:]))
        centre = found.sums[row] / found.voxels[row] - np.array(START)
        np.testing.assert_allclose(centre, region.centroid, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_faces_and_contacts_are_those_that_are_counted_one_by_one(seed):
    """Faces to others, faces on the border, areas and places of contacts are those of a count voxel by voxel."""
    labels = blobs(seed)
    found, (faces, border, contacts) = whole(labels), by_hand(labels)
    for row, number in enumerate(found.ids.tolist()):
        assert found.faces[row].tolist() == faces[number].tolist()
        assert found.border[row].tolist() == border[number].tolist()
    assert [tuple(pair) for pair in found.pairs.tolist()] == sorted(contacts)
    for row, pair in enumerate(sorted(contacts)):
        listed = np.array(contacts[pair])
        assert found.areas[row].tolist() == np.bincount(listed[:, 0], minlength=3).tolist()
        twice = listed[:, 1:].sum(axis=0) + 2 * len(listed) * np.array(START)
        assert found.places[row].tolist() == twice.tolist()


def in_chunks(labels: np.ndarray, shape: Vec) -> list[Measures]:
    """What is complete in each node of the tree of chunks, as the stage computes it."""
    roi = BoundingBox.from_shape(Vec(*labels.shape), START)
    grids = ChunkGrid(roi, roi, shape, (Vec(0, 0, 0), Vec(1, 1, 1))).levels()
    up: dict[Chunk, Measures] = {}
    done = []
    for level, grid in enumerate(grids):
        for chunk in grid:
            if level == 0:
                voxels = labels[
                    tuple(
                        slice(*ends)
                        for ends in zip(chunk.read_box.start - START, chunk.read_box.stop - START, strict=True)
                    )
                ]
                found = measure(voxels, chunk.core, roi)
            else:
                found = Measures.sum([up[child] for child in grids[level - 1].children(chunk)])
            complete, up[chunk] = found.split(chunk.core, roi)
            done.append(complete)
    assert len(up[chunk].ids) == 0
    return done


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), shape=st.tuples(*[st.integers(1, 12)] * 3), rows=st.sampled_from([1, 5, 1000]))
def test_the_measures_of_chunks_add_up_to_those_of_the_whole(seed, shape, rows):
    """Any chunk shape gives the bytes of the whole, also of objects in several pieces, in ranges of any length."""
    labels = blobs(seed, (7, 6, 8))
    done = in_chunks(labels, Vec(*shape))
    assert same(Measures.sum(done), whole(labels))
    ranges = list(in_ranges(lambda: done, rows))
    assert same(Measures.sum(ranges), whole(labels))
    assert np.concatenate([part.ids for part in ranges]).tolist() == whole(labels).ids.tolist()


def test_what_is_complete_does_not_go_up():
    """An object inside of a chunk is complete there; one that touches a face behind which the region goes on is not."""
    labels = np.zeros((4, 4, 8), np.uint64)
    labels[1:3, 1:3, :2], labels[1:3, 1:3, 2:5] = 1, 2
    core, roi = BoundingBox.from_shape(Vec(4, 4, 4)), BoundingBox.from_shape(Vec(4, 4, 8))
    done, up = measure(labels[..., :5], core, roi).split(core, roi)
    assert (done.ids.tolist(), up.ids.tolist()) == ([1], [2])
    assert (done.pairs.tolist(), up.pairs.tolist()) == ([[1, 2]], [])


def test_an_empty_box_has_no_rows():
    """A box of background alone has no object and no contact, and makes tables without rows."""
    found = whole(np.zeros((3, 4, 5), np.uint64))
    assert same(found, Measures.none())
    assert len(table_of_objects(found, (8, 8, 8))) == 0


def test_tables_are_in_nanometres():
    """A box of 2 x 3 x 4 voxels of 40 x 4 x 5 nm has its volume, its surface and its centre; a contact has its area."""
    labels = np.zeros((6, 7, 9), np.uint64)
    labels[1:3, 1:4, 1:5], labels[3:5, 1:4, 1:3] = 5, 6
    found = whole(labels)
    box = table_of_objects(found, (40, 4, 5)).to_pylist()[0]
    assert box["volume_nm3"] == 24 * 800
    assert box["surface_nm2"] == 2 * (12 * 20 + 8 * 200 + 6 * 160)
    assert not box["touches_border"]
    assert [box[f"centre_{axis}"] for axis in "zyx"] == [START[0] + 1.5, START[1] + 2, START[2] + 2.5]
    [contact] = table_of_contacts(found, (40, 4, 5)).to_pylist()
    assert (contact["a"], contact["b"], contact["faces"], contact["area_nm2"]) == (5, 6, 6, 120)
    assert contact["position_z"] == START[0] + 2.5


def test_the_bytes_of_a_table_depend_on_its_rows_alone():
    """A table that comes in pieces of any length gives the same file, which says what its columns mean."""
    import io

    import pyarrow.parquet as pq

    table = table_of_objects(whole(blobs(0)), (8, 8, 8))
    pieces = [table.slice(0, 1), table.slice(1, 0), table.slice(1)]
    data = to_parquet([table], OBJECTS)
    assert data == to_parquet(pieces, OBJECTS)
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.read().equals(table)
    assert set(OBJECTS) == set(file.schema_arrow.names)
    assert b"square nanometres" in file.schema_arrow.metadata[b"petaseg_columns"]
