"""Voxels, places and faces of the objects in a box, and of their contacts, in one pass."""

from __future__ import annotations

import numpy as np

from pipeline.geometry import Triple, Vec
from pipeline.segmentation.compiled import kernel, part
from pipeline.segmentation.hashing import grown, new_table, pair_key, place_of
from pipeline.segmentation.numbering import number

NO_LOW, NO_HIGH = np.iinfo(np.int64).max, np.iinfo(np.int64).min
"""First and last voxel of an object that has no voxel in the core, but a face."""
VOXELS, SUMS, LOW, HIGH, FACES, BORDER, COLUMNS = 0, 1, 4, 7, 10, 13, 16
"""Where the columns of objects begin: one of voxels, and three of all others."""


def count_faces(
    labels: np.ndarray, core: Triple, at_start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Objects and contacts of a core at the start of ``labels``, in the order in which they are met.

    Args:
        labels: uint64 (z, y, x); along each axis, the core and one more voxel, unless the region ends with the core.
        core: the shape of the core.
        at_start: bool (3,): whether the region begins with the core.

    Returns ids, uint64 (n,); their columns, int64 (n, ``COLUMNS``); keys of pairs of places in these, uint64 (m,); and
    faces across each axis, with sums of twice the positions of their centres, int64 (m, 6). Positions count from the
    first voxel of the core.
    """
    numbers, fragments = number(np.ascontiguousarray(labels), Vec(0, 0, 0), np.zeros(3, bool))
    columns = np.zeros((len(fragments.ids), COLUMNS), np.int64)
    columns[:, LOW:HIGH], columns[:, HIGH:FACES] = NO_LOW, NO_HIGH
    room = np.zeros(1024, np.uint64), np.zeros((1024, 6), np.int64)
    pairs, contacts, used = _scan(numbers, tuple(core), at_start, columns, new_table(1024), *room)
    return fragments.ids, columns, pairs[:used], contacts[:used]


@kernel
def _scan(numbers, shape, at_start, columns, table, pairs, contacts):  # type: ignore[no-untyped-def]
    nz, ny, nx = numbers.shape
    cz, cy, cx = shape
    used = np.zeros(1, np.int64)
    for z in range(cz):
        for y in range(cy):
            room = used[0] + 3 * cx
            table = grown(table, room)
            if room > pairs.size:
                pairs, contacts = _with_room(pairs, contacts, 2 * room)
            for x in range(cx):
                own = numbers[z, y, x]
                if own >= 0:
                    _add_voxel(columns[own], z, y, x)
                    _add_border(columns[own], z, y, x, at_start, nz, ny, nx)
                if z + 1 < nz and numbers[z + 1, y, x] != own:
                    _add_face(own, numbers[z + 1, y, x], 0, z, y, x, columns, table, pairs, contacts, used)
                if y + 1 < ny and numbers[z, y + 1, x] != own:
                    _add_face(own, numbers[z, y + 1, x], 1, z, y, x, columns, table, pairs, contacts, used)
                if x + 1 < nx and numbers[z, y, x + 1] != own:
                    _add_face(own, numbers[z, y, x + 1], 2, z, y, x, columns, table, pairs, contacts, used)
    return pairs, contacts, used[0]


@part
def _add_voxel(row, z, y, x):  # type: ignore[no-untyped-def]
    row[VOXELS] += 1
    row[SUMS] += z
    row[SUMS + 1] += y
    row[SUMS + 2] += x
    row[LOW] = min(row[LOW], z)
    row[LOW + 1] = min(row[LOW + 1], y)
    row[LOW + 2] = min(row[LOW + 2], x)
    row[HIGH] = max(row[HIGH], z)
    row[HIGH + 1] = max(row[HIGH + 1], y)
    row[HIGH + 2] = max(row[HIGH + 2], x)


@part
def _add_border(row, z, y, x, at_start, nz, ny, nx):  # type: ignore[no-untyped-def]
    """Faces on the border of the region: where the box begins with it, and behind the last voxel that was read."""
    row[BORDER] += (z == 0 and at_start[0]) + (z == nz - 1)
    row[BORDER + 1] += (y == 0 and at_start[1]) + (y == ny - 1)
    row[BORDER + 2] += (x == 0 and at_start[2]) + (x == nx - 1)


@part
def _add_face(a, b, axis, z, y, x, columns, table, pairs, contacts, used):  # type: ignore[no-untyped-def]
    if a >= 0:
        columns[a, FACES + axis] += 1
    if b >= 0:
        columns[b, FACES + axis] += 1
    if a < 0 or b < 0:
        return
    key = pair_key(a, b)
    place = place_of(table, key)
    if table.keys[place] == np.uint64(0):
        table.keys[place], table.numbers[place] = key, used[0]
        pairs[used[0]] = key
        used[0] += 1
    row = contacts[table.numbers[place]]
    row[axis] += 1
    row[3] += 2 * z + (axis == 0)
    row[4] += 2 * y + (axis == 1)
    row[5] += 2 * x + (axis == 2)


@part
def _with_room(pairs, contacts, n):  # type: ignore[no-untyped-def]
    """Copies with room for ``n`` contacts."""
    more_pairs, more_contacts = np.zeros(n, np.uint64), np.zeros((n, 6), np.int64)
    more_pairs[: pairs.size] = pairs
    more_contacts[: len(contacts)] = contacts
    return more_pairs, more_contacts
