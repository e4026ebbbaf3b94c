"""Functions of targets as a training file calls them that names no option: with the defaults of the targets' tables."""

from __future__ import annotations

from functools import partial

from pipeline.training import targets
from pipeline.training.target_specs import Contours, InstanceDistance, Membranes, SignedDistance

contours = partial(targets.contours, **Contours().model_dump(include={"dilation", "background"}))
membranes = partial(targets.membranes, reach=1.0, **Membranes().model_dump(include={"in_plane", "zero"}))
signed_distance = partial(
    targets.signed_distance, **SignedDistance().model_dump(include={"inside", "outside", "in_plane", "squash"})
)
shared_level = partial(
    targets.instance_distance,
    **InstanceDistance().model_dump(include={"levels", "in_plane"}),
    separate_background=False,
)
"""``instance_distance`` as the reference code has it: background shares level 1 with the rim of objects."""
