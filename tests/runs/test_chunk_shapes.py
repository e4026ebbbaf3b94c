"""The chunk shapes that are proposed fit each other, and neighbouring chunks share few patches."""

import pytest

from pipeline.geometry import Vec
from pipeline.runs.chunk_shapes import least_waste, storage_for


@pytest.mark.parametrize(
    ("stride", "chunk", "storage"),
    [
        ((48, 48, 48), (144, 144, 144), (72, 72, 72)),
        ((12, 120, 120), (132, 120, 120), (66, 60, 60)),
        ((131, 127, 1), (131, 127, 128), (131, 127, 64)),
        ((300, 64, 37), (300, 128, 111), (60, 64, 37)),
    ],
)
def test_chunks_are_multiples_of_the_steps_of_patches_and_of_stored_objects(stride, chunk, storage):
    """Each side is the multiple of the step that is nearest to the wanted one, and stored objects divide it."""
    found = least_waste(Vec(128, 128, 128), Vec(*stride))
    assert (found, storage_for(found, Vec(64, 64, 64))) == (chunk, storage)
