"""Small numbers in place of the ids of a chunk's fragments, with their sizes and the faces that they touch."""

from __future__ import annotations

import numpy as np

from pipeline.geometry import Vec
from pipeline.segmentation.compiled import kernel
from pipeline.segmentation.contacts import OUTSIDE, Fragments, larger, mark, measure, number_row
from pipeline.segmentation.hashing import grown, new_table


def number(ids: np.ndarray, low: Vec, goes_on: np.ndarray) -> tuple[np.ndarray, Fragments]:
    """Small numbers for the fragments of a core that begins at ``low``, int32 (z, y, x), -1 for id 0; sizes and faces.

    ``ids`` is uint64 (z, y, x), C-contiguous; ``goes_on`` is bool (3,): whether the dataset has voxels after the core.
    """
    numbers, nx = np.empty(ids.shape, np.int32), ids.shape[2]
    few = Fragments(np.zeros(512, np.uint64), np.zeros(512, np.int64), np.zeros(512, np.uint8))
    nothing = np.zeros(nx, np.uint64), np.full(nx, -1, np.int32)
    fragments, used = _number(ids, low, goes_on, new_table(1024), few, nothing, numbers)
    return numbers, Fragments(*(array[:used].copy() for array in fragments))


@kernel
def _number(ids, low, goes_on, table, fragments, nothing, numbers):  # type: ignore[no-untyped-def]
    nz, ny, nx = ids.shape
    used = np.zeros(1, np.int64)
    for z in range(nz):
        for y in range(ny):
            n = used[0] + nx
            table = grown(table, n)
            if n > fragments.ids.size:
                fragments = Fragments(larger(fragments.ids, n), larger(fragments.sizes, n), larger(fragments.faces, n))
            behind, behind_numbers = (ids[z, y - 1], numbers[z, y - 1]) if y else nothing
            under, under_numbers = (ids[z - 1, y], numbers[z - 1, y]) if z else nothing
            row = numbers[z, y]
            number_row(ids[z, y], behind, behind_numbers, under, under_numbers, table, fragments, used, row)
            if z < low[0] or y < low[1]:
                mark(row, np.uint8(OUTSIDE), fragments.faces)
            else:
                last_z, last_y = z == nz - 1 and goes_on[0], y == ny - 1 and goes_on[1]
                measure(row, low[2], last_z, last_y, goes_on[2], fragments)
    return fragments, used[0]
