"""The borders between labels."""

from __future__ import annotations

import numpy as np


def borders(labels: np.ndarray) -> np.ndarray:
    """True at both voxels of every face between two labels: bool, the labels' shape."""
    found = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        before, after = (np.index_exp[:] * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        differ = labels[after] != labels[before]
        found[before] |= differ
        found[after] |= differ
    return found
