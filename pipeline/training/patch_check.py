"""The patch of a training, checked against its network and its options before the first step.

1. the rule that the network states, for patches and for the validation part      models/patch_rules.py
2. one step: no norm may see a single voxel
3. no level may be two voxels thick in bfloat16 on a CPU, where torch computes wrong gradients
"""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import nn

from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import Triple
from pipeline.models.patch_rules import PatchRule
from pipeline.training.config import TrainConfig
from pipeline.training.data import validation_boxes
from pipeline.training.sources import Source


def check_patch(network: nn.Module, validation: Source, config: TrainConfig) -> None:
    """Refuse, before the first step, patches that the network would refuse in training or validation.

    The patch that a message names as the nearest passes every rule here.
    """
    rule = PatchRule.of(network)
    also = partial(can_be_trained, network, config)
    rule.check(config.patch_shape, "patch_shape", config.architecture, config.image_channels, also)
    watched = validation_boxes(validation, config)[0].shape
    if not rule.fits(watched):
        raise ConfigError(
            f"validation offers patches of {list(watched)} voxels; {config.architecture} with these arguments takes "
            f"{rule}: choose a larger part for validation, or another patch_shape"
        )
    if problem := first_step_problem(network, config, config.patch_shape):
        raise ConfigError(
            f"patch_shape is {list(config.patch_shape)} with batch_size {config.batch_size}; {config.architecture} "
            f"cannot be trained on it ({problem}): choose a larger patch_shape or batch_size, or another norm"
        )
    if miscomputed(network, config, config.patch_shape):
        raise ConfigError(
            f"patch_shape is {list(config.patch_shape)}: at one level (or gate) of the network it is two voxels thick, "
            "where torch computes wrong gradients on a CPU in bfloat16 (it reads memory that was never written): "
            f"set precision: float32, or choose a thicker or thinner patch; {rule.remedy(config.patch_shape, also)}"
        )


def can_be_trained(network: nn.Module, config: TrainConfig, patch_shape: Triple) -> bool:
    """True if a patch that fits the network can be trained on as well."""
    return not (first_step_problem(network, config, patch_shape) or miscomputed(network, config, patch_shape))


def miscomputed(network: nn.Module, config: TrainConfig, patch_shape: Triple) -> bool:
    """True for a patch of which torch would compute wrong gradients: two voxels thick, in bfloat16, on a CPU."""
    on_cpu = config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available())
    return config.precision == "bfloat16" and on_cpu and two_thick(network, patch_shape)


def first_step_problem(network: nn.Module, config: TrainConfig, patch_shape: Triple) -> str:
    """Why the network cannot take a step on patches of this shape, for example because a batch norm would see a single
    voxel, of which no variance can be taken; "" if it can.
    """
    shapes = copy.deepcopy(network).to("meta").train()
    try:
        with torch.no_grad():
            shapes(torch.empty(PatchRule.of(network).image_shape(patch_shape, config.batch_size), device="meta"))
    except (ValueError, RuntimeError, ModelError) as error:
        return str(error)
    return ""


def two_thick(network: nn.Module, patch_shape: Triple) -> bool:
    """True if any 3D convolution sees a patch of this shape two voxels thick; from shapes alone."""
    shapes, seen = copy.deepcopy(network).to("meta").eval(), set()
    for layer in shapes.modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.register_forward_pre_hook(lambda _, given: seen.add(given[0].shape[2]))
    with torch.no_grad():
        shapes(torch.empty(PatchRule.of(network).image_shape(patch_shape), device="meta"))
    return 2 in seen
