"""Labels of real tissue agree across chunk faces as often as one voxel away from them."""

import h5py
import numpy as np
import pytest

from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.segmentation.agglomeration import Linkage
from pipeline.segmentation.merge_tree import CutRules
from pipeline.segmentation.supervoxels import default_rules, extract_supervoxels
from tests.segmentation.distributed import Case, run_fragments

CHUNK = 64
SIZE = (128, 192, 192)
NEAR = 12
"""Planes this far from a face show how much the agreement varies in this tissue."""


@pytest.fixture(scope="module")
def labels(shared_data):
    """Fragments, and supervoxels and segments out of them, of chunks of 64 voxels a side."""
    with h5py.File(shared_data / "fib25_train2_affinities.h5") as file:
        affinities = file["affinities"][:, : SIZE[0], : SIZE[1], : SIZE[2]]
    box, rules = BoundingBox.from_shape(SIZE), default_rules((8, 8, 8))
    grid = ChunkGrid(box, box, (CHUNK,) * 3, rules.halo())
    fragments, joins = np.zeros(SIZE, np.uint64), {}
    for chunk in grid:
        read = affinities[:, *chunk.read_box.slices()]
        part = extract_supervoxels(
            read, None, read_box=chunk.read_box, core=chunk.core, roi=box, bounds=box, rules=rules
        )
        fragments[chunk.core.slices()], joins[chunk.index] = part.ids, part.joins
    case = Case(box, box, np.empty(0), affinities)
    outcome = run_fragments(case, grid, fragments, joins, Linkage("mean", 0.5), 0.1, CutRules(0.3, 300, 0.2))
    return {"fragments": fragments, "supervoxels": outcome.supervoxels, "segments": outcome.segments}


def agreement(ids, axis):
    """Between plane p - 1 and p along an axis, p = 1 ..: the share of labelled pairs with the same label."""
    planes = np.moveaxis(ids, axis, 0)
    both = (planes[1:] > 0) & (planes[:-1] > 0)
    return ((planes[1:] == planes[:-1]) & both).sum((1, 2)) / both.sum((1, 2))


def seams_and_noise(ids):
    """Agreement at each face minus the mean of one voxel before and after; the same at planes near the face."""
    seams, noise = [], []
    for axis in range(3):
        shares = agreement(ids, axis)
        excess = shares[1:-1] - (shares[:-2] + shares[2:]) / 2  # at p = 2 ..
        for face in range(CHUNK, SIZE[axis], CHUNK):
            seams.append(excess[face - 2])
            noise += [excess[face - 2 + step] for step in range(-NEAR, NEAR + 1) if abs(step) > 1]
    return np.array(seams), np.array(noise)


@pytest.mark.parametrize("kind", ["supervoxels", "segments"])
def test_a_chunk_face_looks_like_any_other_plane(labels, kind):
    """Labels agree across a chunk face as often as across planes nearby, within the noise of the tissue."""
    seams, noise = seams_and_noise(labels[kind])
    assert abs(seams.mean() - noise.mean()) < 3 * noise.std() / np.sqrt(len(seams))
    assert (abs(seams - noise.mean()) < 4 * noise.std()).all()


def test_labels_that_are_cut_at_faces_would_be_noticed(labels):
    """Fragments, which end at every chunk face, lie far outside of the noise by the same measure."""
    seams, noise = seams_and_noise(labels["fragments"])
    assert (seams < noise.mean() - 20 * noise.std()).all()
