"""Weights of two published codes of Lee et al.'s U-Net in the residual U-Net here.

    UNet_PNI (weih527/SSNS-Net)               RSUNet (torms3/Superhuman)            here
    embed_in.0                                embed_in.conv.conv                    entry.0
    conv0 .. conv3, center                    convmod0 .. convmod4                  down.0, down.i.1
    block1.0, block2.0, block2.3 of one       conv1.conv, conv2.conv, conv3.conv    conv1, conv2, conv3
    block1.1, block2.1, block3 of one         bn1, bn2, bn3                         norm1, norm2, norm3
    up0 .. up3: .0, .1                        upsample3 .. upsample0: .conv.conv    up.k.enlarge.grow, .project
    cat0 .. cat3: .0                          upsample3 .. upsample0: .bn           up.k.norm
    conv4 .. conv7                            dconvmod3 .. dconvmod0                up.k.module
    embed_out.0, out_put.0                    embed_out.conv.conv, output.<name>    exit.0, exit.2

UNet_PNI enlarges by transposed convolutions (``transposeS``) and adds skip connections (``merge_mode="add"``); it ends
with a sigmoid, which is not part of the network here. RSUNet interpolates; its several outputs become channels of one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.models.pretrained import Rules, fit, published_state, renamed
from pipeline.models.residual_unet import ResidualUNet

PARTS = ("embed_", "conv", "center.", "up", "cat", "out", "dconvmod")
GAPS = 4
"""The number of gaps between the levels of UNet_PNI; RSUNet has any number."""

UNET_PNI: Rules = (
    (r"^embed_in\.", "entry."),
    (r"^embed_out\.0\.", "exit.0."),
    (r"^out_put\.0\.", "exit.2."),
    (r"^conv0\.", "down.0."),
    *((rf"^conv{i}\.", f"down.{i}.1.") for i in range(1, GAPS)),
    (r"^center\.", f"down.{GAPS}.1."),
    *((rf"^conv{GAPS + k}\.", f"up.{k}.module.") for k in range(GAPS)),
    *((rf"^cat{k}\.0\.", f"up.{k}.norm.") for k in range(GAPS)),
    *((rf"^up{k}\.0\.", f"up.{k}.enlarge.grow.") for k in range(GAPS)),
    *((rf"^up{k}\.1\.", f"up.{k}.enlarge.project.") for k in range(GAPS)),
    (r"\.block1\.0\.", ".conv1."),
    (r"\.block1\.1\.", ".norm1."),
    (r"\.block2\.0\.", ".conv2."),
    (r"\.block2\.1\.", ".norm2."),
    (r"\.block2\.3\.", ".conv3."),
    (r"\.block3\.", ".norm3."),
)


def superhuman_rules(gaps: int) -> Rules:
    """Rules that turn the names of RSUNet into ours."""
    return (
        (r"^embed_in\.conv\.conv\.", "entry.0."),
        (r"^embed_out\.conv\.conv\.", "exit.0."),
        (r"^convmod0\.", "down.0."),
        *((rf"^convmod{i}\.", f"down.{i}.1.") for i in range(1, gaps + 1)),
        *((rf"^dconvmod{gaps - 1 - k}\.", f"up.{k}.module.") for k in range(gaps)),
        *((rf"^upsample{gaps - 1 - k}\.bn\.", f"up.{k}.norm.") for k in range(gaps)),
        *((rf"^upsample{gaps - 1 - k}\.conv\.conv\.", f"up.{k}.enlarge.project.") for k in range(gaps)),
        (r"\.conv(\d)\.conv\.", r".conv\1."),
        (r"\.bn(\d)\.", r".norm\1."),
    )


def unet_from_superhuman(arrays: Mapping[str, Any], dtype: torch.dtype = torch.float32, **options: Any) -> ResidualUNet:
    """The network with the weights of either code, in evaluation mode; widths and outputs follow from their shapes.

    arrays: names of the ``state_dict`` -> arrays or tensors, or an opened file of a reference run (see
    ``published_state``). options: arguments of ``ResidualUNet`` that the weights do not determine: ``activation``, and
    for training ``momentum`` (0.001 in both codes). Raises ``ModelError`` if anything is missing, unknown or of another
    shape.
    """
    state = published_state(arrays, PARTS)
    if "embed_in.0.weight" in state:
        ours = renamed(state, UNET_PNI)
    elif "embed_in.conv.conv.weight" in state:
        gaps = sum(name.startswith("dconvmod") and name.endswith("conv1.conv.weight") for name in state)
        ours = renamed(_one_output(state), superhuman_rules(gaps))
    else:
        raise ModelError(
            f"{sorted(state)[:3]} ... are weights of neither UNet_PNI nor Superhuman's RSUNet; embed_in.* is needed"
        )
    network = ResidualUNet(**{**_arguments(ours), **options}).to(dtype)
    fit(network, ours, "Lee et al.'s U-Net")
    return network.eval()


def _one_output(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Several outputs as channels of one, in their order."""
    outputs = [name.removesuffix(".weight") for name in state if name.startswith("output.") and name.endswith("weight")]
    rest = {name: value for name, value in state.items() if not name.startswith("output.")}
    return rest | {
        f"exit.2.{end}": torch.cat([state[f"{name}.{end}"] for name in outputs]) for end in ("weight", "bias")
    }


def _arguments(ours: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments that follow from the shapes."""
    entry, first = ours.get("entry.0.weight"), ours.get("down.0.conv1.weight")
    kernels = {name: value for name, value in ours.items() if re.fullmatch(r"down\..*conv1\.weight", name)}
    widths = [len(kernels[name]) for name in sorted(kernels, key=lambda name: int(name.split(".")[1]))]
    if entry is None or first is None or "exit.2.bias" not in ours:
        raise ModelError("entry, first module or output are missing among the weights; give the whole state_dict")
    return {
        "widths": widths,
        "first_kernel": tuple(first.shape[2:]),
        "embedding": tuple(entry.shape[2:]),
        "in_channels": entry.shape[1],
        "out_channels": len(ours["exit.2.bias"]),
        "upsample": "transposed" if "up.0.enlarge.grow.weight" in ours else "linear",
    }
