"""Weights of PyTorch Connectomics' U-Nets (MIT licence, 2021) in the customisable U-Net here.

    conv_in.0, conv_in.1                      entry.0, entry.1
    down_layers.i.1, down_layers.i.2          down.i.0, down.i.1; behind a max pool, down.i.1 and down.i.2
    non_local.W.0, .W.1, .theta, .phi, .g     the last of the lowest level: w, norm, theta, phi, g
    up_layers.i.0, .1; feat_layers.i          up.k.narrow, .block; up.k.plus, from the lowest level: k = n - 2 - i
    conv.0, conv.1 of a block                 conv1, conv2
    conv.0.0, conv.0.1, conv.1.fc of one      with squeeze and excitation: conv1, conv2, gate
    conv_out.0                                exit

Left: names in ``UNet3D``, ``UNetPlus3D`` and ``UNet2D``; right: names here. Kernels of ``UNet2D`` become flat ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.models.connectomics_unet import ConnectomicsUNet
from pipeline.models.pretrained import Rules, fit, published_state, renamed

PARTS = ("conv_in.", "conv_out.", "down_layers.", "up_layers.", "feat_layers.", "non_local.")


def unet_from_connectomics(
    arrays: Mapping[str, Any], dtype: torch.dtype = torch.float32, **options: Any
) -> ConnectomicsUNet:
    """The network with these weights and the quirks of the published code, in evaluation mode.

    Widths, isotropy, outputs, blocks and the norm, if it is a batch norm, follow from names and shapes; the rest are
    options of ``ConnectomicsUNet``: ``pooling``, ``activation``, ``padding``, ``norm``. Any size of patch is taken, as
    there.

    arrays: names of the ``state_dict`` -> arrays or tensors, or an opened file of a reference run (see
    ``published_state``). Raises ``ModelError`` if anything is missing, unknown or of another shape.
    """
    state = published_state(arrays, PARTS)
    levels = sum(bool(re.fullmatch(r"down_layers\.\d+\.1\.0\.weight", name)) for name in state)
    if not levels or "conv_in.0.weight" not in state or "conv_out.0.bias" not in state:
        raise ModelError(
            f"{sorted(state)[:3]} ... are not the weights of a U-Net of PyTorch Connectomics; conv_in.*, "
            "down_layers.*, up_layers.* and conv_out.* are needed"
        )
    arguments = {**_arguments(state, levels), **options}
    network = ConnectomicsUNet(**arguments, published=True).to(dtype)
    flat = {name: value.unsqueeze(2) if value.ndim == 4 else value for name, value in state.items()}
    fit(network, renamed(flat, _rules(levels, network.pooling)), "the U-Net of PyTorch Connectomics")
    return network.eval()


def _arguments(state: Mapping[str, Tensor], levels: int) -> dict[str, Any]:
    """The arguments that follow from names and shapes."""
    entry = state["conv_in.0.weight"]
    kernels = [state[f"down_layers.{i}.1.0.weight"] for i in range(levels)]
    squeezed = "_se" if any(".fc." in name for name in state) else ""
    first = "down_layers.0.2.conv.0.0.0.weight" if squeezed else "down_layers.0.2.conv.0.0.weight"
    pre = "_pa" if first not in state or state[first].ndim == 1 else ""
    normed = "conv_in.1.running_mean" in state
    return {
        "widths": [len(kernel) for kernel in kernels],
        "isotropy": [kernel.ndim == 5 and kernel.shape[2] == 3 for kernel in kernels],
        "dimensions": entry.ndim - 2,
        "in_channels": entry.shape[1],
        "out_channels": len(state["conv_out.0.bias"]),
        "io_kernel": (1, *entry.shape[2:]) if entry.ndim == 4 else tuple(entry.shape[2:]),
        "block": f"residual{squeezed}{pre}",
        "plus": any(name.startswith("non_local.") for name in state),
        "norm": "batch" if normed else "none",
    }


def _rules(levels: int, pooling: bool) -> Rules:
    """Rules that turn their names into ours."""
    shift = int(pooling)
    lowest = f"down.{levels - 1}."
    return (
        (r"^conv_in\.", "entry."),
        (r"^conv_out\.0\.", "exit."),
        *((rf"^down_layers\.{i}\.1\.", rf"down.{i}.{shift if i else 0}.") for i in range(levels)),
        *((rf"^down_layers\.{i}\.2\.", rf"down.{i}.{1 + (shift if i else 0)}.") for i in range(levels)),
        *((rf"^up_layers\.{i}\.0\.", rf"up.{levels - 2 - i}.narrow.") for i in range(levels - 1)),
        *((rf"^up_layers\.{i}\.1\.", rf"up.{levels - 2 - i}.block.") for i in range(levels - 1)),
        *((rf"^feat_layers\.{i}\.", rf"up.{levels - 2 - i}.plus.") for i in range(levels - 1)),
        (r"^non_local\.W\.0\.", f"{lowest}{2 + shift}.w."),
        (r"^non_local\.W\.1\.", f"{lowest}{2 + shift}.norm."),
        (r"^non_local\.", f"{lowest}{2 + shift}."),
        (r"\.conv\.1\.fc\.0\.", ".gate.squeeze."),
        (r"\.conv\.1\.fc\.2\.", ".gate.excite."),
        (r"\.conv\.0\.0\.(\d)\.", r".conv1.\1."),
        (r"\.conv\.0\.1\.(\d)\.", r".conv2.\1."),
        (r"\.conv\.0\.(\d)\.", r".conv1.\1."),
        (r"\.conv\.1\.(\d)\.", r".conv2.\1."),
    )
