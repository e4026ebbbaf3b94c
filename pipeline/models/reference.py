"""Weights of the papers' published codes under our names: one function for each cell and network.

    cell = HGRU(25, (5, 5)).double()
    cell.load_state_dict(hgru(tensors_of(numpy.load("reference.npz"))))

Names are those of c-rbp/pathfinder_experiments (hGRU, ConvLSTM, and the networks around them), of c-rbp/
panoptic_segmentation and serre-lab/hgru-pytorch (hGRU), and of serre-lab/gammanet_pytorch (fGRU, and the gamma-Net on
VGG16; both fit ``TORCH_PORT``). Every function takes their names -> tensors and returns ours -> tensors; gradients and
parts of networks have names too. Unknown names are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.models.vgg16 import LAYERS

Tensors = Mapping[str, Tensor]

PARAMETERS = ("weight", "bias")
AFFINE = {"weight": "gain", "bias": "bias"}
LSTM_GATES = "ifco"
"""The published letters of the gates i, f, g, o."""
AROUND = (("conv0", "bank"), ("conv6", "readout"))
"""The layers around the cells of the contour networks: published name, and ours."""


def tensors_of(arrays: Mapping[str, Any], prefix: str = "w__") -> dict[str, Tensor]:
    """Arrays of an npz file whose keys begin with ``prefix``; there, two underscores stand for a dot."""
    return {
        key.removeprefix(prefix).replace("__", "."): torch.as_tensor(arrays[key])
        for key in arrays
        if key.startswith(prefix)
    }


def hgru(reference: Tensors) -> dict[str, Tensor]:
    """``hConvGRUCell`` -> ``HGRU``."""
    names = {"w_gate_inh": "inhibition.free", "w_gate_exc": "excitation.free", "w": "omega"}
    names |= {name: name for name in ("alpha", "mu", "gamma", "kappa")}
    for theirs, ours in (("u1_gate", "inhibition_gate"), ("u2_gate", "excitation_gate")):
        names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in PARAMETERS}
    for k in range(4):
        names |= _norm(f"bn.{k}", f"norms.{k}")
    return _renamed(reference, names)


def relu_hgru(reference: Tensors, step: int | None = None, gamma_multiplies: bool = False) -> dict[str, Tensor]:
    """``hConvGRUCell`` of serre-lab/hgru-pytorch -> ``HGRU`` of the form ``relu`` with ``normalise_gates``.

    step: counted from 0. The last version has four norms for each step (``bn.0`` to ``bn.31``), so each step is a cell
    of ours. Their running statistics are left out: they are those of its evaluation mode, and the cell always takes
    those of the batch. Earlier versions have four norms in all: None.
    gamma_multiplies: for the earliest, in which gamma is a factor of c2: kappa (z + gamma c2) + w z gamma c2.
    """
    found = hgru(reference if step is None else _norms_of(reference, step))
    if not gamma_multiplies:
        return found
    if missing := [name for name in ("kappa", "gamma", "omega") if name not in found]:
        raise ModelError(f"{', '.join(missing)} are missing; they are multiplied with each other: give all of them")
    return found | {"gamma": found["kappa"] * found["gamma"], "omega": found["omega"] * found["gamma"]}


def panoptic_hgru(reference: Tensors) -> dict[str, Tensor]:
    """``hConvGRUCellOld`` of c-rbp/panoptic_segmentation -> ``HGRU`` of the form ``panoptic``.

    With their GALA attention; without it, the cell needs ``attention=False``.
    """
    names = {"w_gate_inh": "inhibition.free", "w_gate_exc": "excitation.free", "w": "omega"}
    names |= {name: name for name in ("alpha", "mu", "kappa")}
    names |= {f"u1_channel_gate_0.{kind}": f"inhibition_gate.channels.0.{kind}" for kind in PARAMETERS}
    names |= {"u1_channel_gate_1.weight": "inhibition_gate.channels.2.weight"}
    names |= {f"u1_spatial_gate_{k}": f"inhibition_gate.places.{2 * k}.weight" for k in range(2)}
    names |= {"u1_spatial_bias": "inhibition_gate.places.0.bias", "u1_combine_bias": "inhibition_gate.bias"}
    for theirs, ours in (("u1_gate", "inhibition_gate"), ("u2_gate", "excitation_gate")):
        names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in PARAMETERS}
    return _renamed(reference, names | _norm("bn.0", "norms.1") | _norm("bn.1", "norms.3"))


def fgru(reference: Tensors, gate_keeps: bool = False) -> dict[str, Tensor]:
    """``fGRUCell2`` and ``fGRUCell2_td`` -> ``FGRU`` and ``TopDownFGRU``.

    Attention may be GALA, of one layer or more (``gate_layers=2``), with ``gate_bias``; "se" (``local_gate=False``,
    with ``gate_bias``); or none (``local_gate=False``, ``rectify_gates=False``). Kernels of ``tied_kernels="depth"``,
    one a channel, become the diagonal of ours. Without norms the port adds no gate biases either: make them zero.

    gate_keeps: for the older ``fGRUCell``, whose gate is the share that is kept: since 1 - s(a) = s(-a), the signs of
        the norm
    before it change. That cell also needs ``divisive_alpha`` and ``rectify_drive``, by its defaults.
    """
    names = {"conv_c1_w": "inhibition.free", "conv_c2_w": "excitation.free", "conv_g2_w": "excitation_gate.weight"}
    names |= {"conv_g1_b": "bias_inhibition", "conv_g2_b": "bias_excitation"}
    names |= {name: name for name in ("alpha", "mu", "omega", "kappa")} | {"conv_g1_w": "global_gate.weight"}
    numbers = sorted({int(number) for name in reference for number in re.findall(r"attention\.(\d+)\.", name)})
    for theirs, ours in (("attention.se", "global_gate"), ("attention", "global_gate"), ("attention.sa", "local_gate")):
        for number in numbers:  # 0 alone is one convolution, and 0, 2, ... a row of them
            inside = ours if numbers == [0] else f"{ours}.{number}"
            names |= {f"{theirs}.attention.{number}.{kind}": f"{inside}.{kind}" for kind in PARAMETERS}
    for k, norm in enumerate(("bn_g1", "bn_c1", "bn_g2", "bn_c2")):
        names |= _norm(norm, f"norms.{k}")
    found = {
        name: _dense(tensor) if name.endswith(".free") else tensor
        for name, tensor in _renamed(reference, names).items()
    }
    flipped = ("norms.2.gain", "norms.2.bias") if gate_keeps else ()
    return {name: -tensor if name in flipped else tensor for name, tensor in found.items()}


def convlstm(reference: Tensors) -> dict[str, Tensor]:
    """``ConvLSTMCell`` -> ``ConvLSTM`` without a forget offset; its eight convolutions become two."""
    stacked = {
        "from_input.weight": [f"Wx{gate}.weight" for gate in LSTM_GATES],
        "from_input.bias": [f"Wx{gate}.bias" for gate in LSTM_GATES],
        "from_state.weight": [f"Wh{gate}.weight" for gate in LSTM_GATES],
    }
    known = {name for names in stacked.values() for name in names}
    _refuse_unknown(reference, known)
    if missing := sorted(known - reference.keys()):
        raise ModelError(f"{', '.join(missing)} are missing; the gates are stacked, so all must be there: add them")
    return {ours: torch.cat([reference[name] for name in theirs]) for ours, theirs in stacked.items()}


def contour(reference: Tensors) -> dict[str, Tensor]:
    """``hConvGRU`` -> ``HGRUContour``, and ``ConvLSTM`` -> ``ConvLSTMContour``."""
    around = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in AROUND for kind in PARAMETERS}
    cell = _below(reference, "unit1.")
    inner = convlstm(cell) if any(name.startswith("Wx") for name in cell) else hgru(cell)
    outer = {name: tensor for name, tensor in reference.items() if not name.startswith("unit1.")}
    return _renamed(outer, around | _norm("bn", "readout_norm")) | {f"cell.{n}": tensor for n, tensor in inner.items()}


def feedforward_contour(reference: Tensors, depth: int = 6) -> dict[str, Tensor]:
    """``FFConvNet`` -> ``FeedforwardContour``."""
    names = {f"conv{depth + 1}.{kind}": f"readout.{kind}" for kind in PARAMETERS}
    for k in range(depth + 1):
        names |= {f"conv{k}.{kind}": f"convolutions.{k}.{kind}" for kind in PARAMETERS}
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        names |= {f"bn{k}.{kind}": f"norms.{k}.{kind}" for kind in (*PARAMETERS, *statistics)}
    return _renamed(reference, names)


def gamma_net_vgg(reference: Tensors, gaps: int = 3) -> dict[str, Tensor]:
    """``BaseGN`` -> ``GammaNetVGG`` of the reading ``torch_port``; ``gaps`` lie between its levels.

    Their way down is numbered from the top. Their blocks repeat the convolutions of VGG16, which count once.
    """
    repeated = ("ds_blocks.", "input_block.", "output_block.")
    reference = {name: tensor for name, tensor in reference.items() if not name.startswith(repeated)}
    names = _norm("readout_norm", "readout_norm") | {f"readout_conv.{kind}": f"readout.{kind}" for kind in PARAMETERS}
    names |= {f"base_ff.{layer}.{kind}": f"vgg.{layer}.{kind}" for layer in LAYERS for kind in PARAMETERS}
    for level in range(gaps):
        block = f"us_blocks.{gaps - 1 - level}"
        names |= _norm(f"{block}.0", f"down_norms.{level}")
        for place, layer in ((1, 0), (3, 2)):
            names |= {f"{block}.{place}.{kind}": f"down.{level}.{layer}.{kind}" for kind in PARAMETERS}
    units = {f"h_units.{level}.": f"horizontal.{level}." for level in range(gaps + 1)}
    units |= {f"td_units.{gaps - 1 - level}.": f"top_down.{level}." for level in range(gaps)}
    result: dict[str, Tensor] = {}
    for theirs, ours in units.items():
        result |= {ours + name: tensor for name, tensor in fgru(_below(reference, theirs)).items()}
    rest = {name: tensor for name, tensor in reference.items() if not name.startswith(tuple(units))}
    return result | _renamed(rest, names)


def _norms_of(reference: Tensors, step: int) -> dict[str, Tensor]:
    """The cell with the norms of one step alone, numbered from 0, without running statistics."""
    own = {f"bn.{4 * step + k}.{kind}": f"bn.{k}.{kind}" for k in range(4) for kind in PARAMETERS}
    if missing := sorted(own.keys() - reference.keys()):
        raise ModelError(f"step is {step}; {', '.join(missing)} are missing: give a step that the weights have")
    rest = {name: tensor for name, tensor in reference.items() if not name.startswith("bn.")}
    return rest | {ours: reference[theirs] for theirs, ours in own.items()}


def _dense(kernel: Tensor) -> Tensor:
    """Kernels of single channels, (c, 1, k), as a kernel over all channels, (c, c, k); others are not changed."""
    return (
        kernel
        if len(kernel) == kernel.shape[1]
        else torch.diag_embed(kernel[:, 0].movedim(0, -1)).movedim((-2, -1), (0, 1))
    )


def _norm(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{kind}": f"{ours}.{name}" for kind, name in AFFINE.items()}


def _below(reference: Tensors, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in reference.items() if name.startswith(prefix)}


def _renamed(reference: Tensors, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Vectors (c, 1, 1) become (c,); all else keeps its shape."""
    _refuse_unknown(reference, set(names))
    return {
        names[name]: tensor.flatten() if tensor.ndim == 3 and tensor.shape[1:].numel() == 1 else tensor
        for name, tensor in reference.items()
    }


def _refuse_unknown(reference: Tensors, known: set[str]) -> None:
    unknown = sorted(reference.keys() - known)
    if unknown:
        raise ModelError(
            f"the reference's names {', '.join(unknown[:5])} are not known here; expected are names like "
            f"{', '.join(sorted(known)[:5])}: take the function of the right cell or network, and its prefix away"
        )
