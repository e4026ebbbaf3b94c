"""Published weights: they are read from a user's file and renamed for the networks here.

A file is ``safetensors``, or a torch file of tensors alone (``weights_only``: nothing in it can run).
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import ModelError

Rules = Sequence[tuple[str, str]]
"""Regular expressions of published names -> names here, applied one after the other."""


@runtime_checkable
class HasBackbone(Protocol):
    """A network with a part for which pretrained weights are published: a ResNet, or VGG16."""

    def load_backbone(self, path: str | Path) -> None:
        """Load published weights into that part; ``ModelError`` if they belong to another network."""


def load_backbone(network: nn.Module, path: str | Path, architecture: str) -> None:
    """Load published weights into the part of a network that takes them; ``ModelError`` if it has no such part."""
    if not isinstance(network, HasBackbone):
        raise ModelError(
            f"backbone is {path}, and no part of {architecture} has published weights: choose resnet_fcn, rignet with "
            "a resnet_fcn in it, canvas_lstm or gamma_net_vgg, or leave backbone out"
        )
    network.load_backbone(path)


def digest_of(path: str | Path) -> str:
    """SHA-256 of a file of weights; ``ModelError`` if it is not there."""
    if not Path(path).is_file():
        raise ModelError(f"{path} does not exist; give the file of the pretrained weights")
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` file or a torch file; ``ModelError`` if it is neither.

    A torch file may hold the tensors themselves, or one table of them under ``state_dict`` or ``model``.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path} does not exist; give the file of the pretrained weights")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{path} holds more than tensors, or is no torch file ({reason}); code in weights is never run: "
            "save the state_dict alone, best as safetensors"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{path} holds no table of tensors by name; save the state_dict of the network")
    return dict(found)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} is no safetensors file ({error}); fetch it again") from None


def published_state(arrays: Mapping[str, Any], beginnings: Sequence[str]) -> dict[str, Tensor]:
    """The weights of a model under their own names: the entries whose names begin with one of ``beginnings``.

    ``arrays``: a live ``state_dict``, or an opened file of a reference run, in which a prefix ``w__`` marks weights and
    ``__`` stands for dots; what is not a weight is passed over.
    """
    named = {name.removeprefix("w__").replace("__", "."): name for name in arrays}
    return {name: torch.as_tensor(arrays[key]) for name, key in named.items() if name.startswith(tuple(beginnings))}


def renamed(state: Mapping[str, Any], rules: Rules) -> dict[str, Tensor]:
    """The same tensors under the names that the rules give."""
    result = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = torch.as_tensor(value)
    return result


def misfits(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """The reasons why tensors do not fit a module: one phrase for each that is missing, unknown or of another shape."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return [
        *(f"{name} is missing" for name in sorted(wanted.keys() - found.keys())),
        *(f"{name} is not known" for name in sorted(found.keys() - wanted.keys())),
        *(
            f"{name} has shape {found[name]}, not {wanted[name]}"
            for name in sorted(wanted.keys() & found.keys())
            if found[name] != wanted[name]
        ),
    ]


def fit(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load tensors into a module; ``ModelError`` names its ``misfits``.

    Counters of batches (``num_batches_tracked``) have no effect and may be missing.
    """
    own = module.state_dict()
    state = {name: own[name] for name in own if name.endswith("num_batches_tracked")} | dict(state)
    if problems := misfits(module, state):
        raise ModelError(
            f"the weights do not fit {what}: {'; '.join(problems[:5])}; they must come from the same network"
        )
    module.load_state_dict(state)
