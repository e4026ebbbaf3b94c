"""The maps by which the two networks of thick sections meet: found in each section, then read as a stack.

    channel 0        membranes: another cell lies within a voxel, in the section
    channels 1..6    shape descriptors of the section: mean offset y, x; variance y, x; Pearson yx; size

Both are defined in voxels of the section, not in nm, so that one second network serves sections of every voxel size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.training.losses import Bce, MeanSquare
from pipeline.training.target_kinds import Membranes, ShapeDescriptors
from pipeline.training.target_specs import AnyTarget, make_targets

SIGMA_VOXELS = 10.0
"""Sigma of the window of the shape descriptors."""
MAPS = 7
"""The number of maps."""


def map_targets(resolution_nm: Sequence[float]) -> tuple[AnyTarget, ...]:
    """The targets of the first network, for sections of this voxel size (z, y, x); label 0 is not known."""
    sigma = tuple(SIGMA_VOXELS * size for size in resolution_nm[1:])
    return Membranes(losses=(Bce(),)), ShapeDescriptors(
        sigma_nm=sigma, losses=(MeanSquare(activation="sigmoid", weight=5.0),)
    )


def true_maps(labels: np.ndarray) -> np.ndarray:
    """The maps of a section whose labels (y, x) are known: float32 (7, y, x), from 0 to 1."""
    return make_targets(map_targets((1.0, 1.0, 1.0)), labels, (1.0, 1.0))[0]
