"""Weights of DeepEM's RSUNet (seung-lab, MIT licence) in the residual U-Net here.

    in.conv.conv                              entry
    core.iconv, core.dconvs.i.1               down.0, down.(i + 1).1
    core.uconvs.i.up.up.1, core.uconvs.i.conv up.i.enlarge.project, up.i.module
    .pre, .res.conv1, .res.conv2, .post       norm1 and conv1, norm2 and conv2, ... norm4 and conv4
    core.final.norm                           exit.0
    out.<name>.conv                           exit.2; several outputs become channels of one, in their order
    core.uconvs.i.up.up.0                     up.i.enlarge.kernel: constant; compared with that of ``Upsample``

Left: names in DeepEM; right: names here. Kernels, norms and their running statistics are taken over as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.geometry import Triple
from pipeline.models.axes import as_vec
from pipeline.models.pretrained import Rules, fit, published_state, renamed
from pipeline.models.residual_unet import SIZES, ResidualUNet, linear_kernel

RULES: Rules = (
    (r"^in\.conv\.conv\.", "entry."),
    (r"^core\.iconv\.", "down.0."),
    *((rf"^core\.dconvs\.{i}\.1\.", f"down.{i + 1}.1.") for i in range(8)),
    (r"^core\.uconvs\.(\d+)\.up\.up\.1\.", r"up.\1.enlarge.project."),
    (r"^core\.uconvs\.(\d+)\.conv\.", r"up.\1.module."),
    (r"^core\.final\.norm\.", "exit.0."),
    (r"\.pre\.norm_(relu|act)\.norm\.", ".norm1."),
    (r"\.res\.conv1\.norm_(relu|act)\.norm\.", ".norm2."),
    (r"\.res\.conv2\.norm_(relu|act)\.norm\.", ".norm3."),
    (r"\.post\.norm_(relu|act)\.norm\.", ".norm4."),
    (r"\.pre\.conv\.", ".conv1."),
    (r"\.res\.conv1\.conv\.", ".conv2."),
    (r"\.res\.conv2\.conv\.", ".conv3."),
    (r"\.post\.conv\.", ".conv4."),
)


def rsunet_from_deepem(arrays: Mapping[str, Any], dtype: torch.dtype = torch.float32, **options: Any) -> ResidualUNet:
    """The network with these weights, in evaluation mode; widths, pools and outputs follow from their shapes.

    options: of ``ResidualUNet``, which the weights do not tell: ``activation`` and ``norm`` of the variants of RSUNet,
    and for training ``momentum``.
    ``arrays``: names of the model's ``state_dict`` -> arrays or tensors. A prefix ``w__`` of a name is dropped, ``__``
    may stand for its dots, and what is not a weight is passed over: an opened file of a reference run can be given as
    it is.
    Raises ``ModelError`` if anything is missing, unknown or of another shape.
    """
    state = published_state(arrays, ("in.", "core.", "out."))
    heads = [name.removesuffix(".weight") for name in state if re.fullmatch(r"out\..*\.weight", name)]
    kernels = _upsampling(state)
    if not heads or not kernels or "in.conv.conv.weight" not in state:
        raise ModelError(
            f"{sorted(state)[:3]} ... are not the weights of DeepEM's RSUNet; in.*, core.* and out.* are needed"
        )
    entry = state["in.conv.conv.weight"]
    widths = [len(entry)] + [len(state[f"core.dconvs.{i}.1.pre.conv.weight"]) for i in range(len(kernels))]
    shape = {"widths": widths, "embedding": tuple(entry.shape[2:]), "in_channels": entry.shape[1]}
    pools = [as_vec([(side + 1) // 2 for side in kernel.shape[2:]]) for kernel in kernels]  # sides are 2 p - p mod 2
    outputs = {end: torch.cat([state.pop(f"{head}.{end}") for head in heads]) for end in ("weight", "bias")}
    shape |= {"pools": pools[::-1], "upsample": _upsample(kernels, pools), "out_channels": len(outputs["bias"])}
    arguments: dict[str, Any] = {**SIZES["rsunet"], **shape, **options}
    network = ResidualUNet(**arguments).to(dtype)
    fit(network, renamed(state, RULES) | {f"exit.2.{end}": value for end, value in outputs.items()}, "the RSUNet")
    for up, kernel in zip(network.up, kernels, strict=True):
        up.enlarge.kernel = kernel.to(dtype)  # type: ignore[union-attr]  # a third is not the same in all precisions
    return network.eval()


def _upsampling(state: dict[str, Tensor]) -> list[Tensor]:
    """Take the constant kernels out of the weights, the coarsest level first."""
    names = [name for name in state if re.fullmatch(r"core\.uconvs\.\d+\.up\.up\.0\.weight", name)]
    return [state.pop(name) for name in sorted(names, key=lambda name: int(name.split(".")[2]))]


def _upsample(kernels: Sequence[Tensor], pools: Sequence[Triple]) -> str:
    """The way up that has these constant weights."""
    for how, flat in (("fixed", False), ("published", True)):
        expected = [linear_kernel(len(kernel), pool, flat) for kernel, pool in zip(kernels, pools, strict=True)]
        if all(a.shape == b.shape and torch.allclose(a, b.to(a)) for a, b in zip(kernels, expected, strict=True)):
            return how
    raise ModelError(
        f"the upsampling weights for factors of {pools} are not linear ones, nor linear along y and x and constant "
        "along z: such a network cannot be taken over"
    )
