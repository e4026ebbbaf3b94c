"""A model: an architecture by name, its arguments, a ``safetensors`` file of weights, and a card that describes it.

    <folder>/card.yaml               read by people and programs
    <folder>/weights.safetensors     tensors only: nothing in it can run

Nothing is ever unpickled. ``load_card`` checks the card and the checksum of the weights without loading torch;
``load_model`` builds the network and refuses weights that do not fit it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from pipeline.config.base import Level, Positive, Shape, Share, Table, Voxel
from pipeline.config.fingerprint import fingerprint
from pipeline.config.reading import read_config
from pipeline.config.strict_yaml import dump_yaml
from pipeline.errors import ConfigError, ModelError
from pipeline.formats import CARD, FileFormat
from pipeline.models import MODELS, REVISIONS
from pipeline.registry import find, load
from pipeline.storage import absolute, local_path, parent_of, store_of

if TYPE_CHECKING:
    from torch import nn

BUNDLED = Path(__file__).parent / "bundled"
CARD_FILE, WEIGHTS_FILE = "card.yaml", "weights.safetensors"
"""The files of a model in its folder."""


class Normalisation(Table):
    """Constants of the whole dataset: x = (raw - offset) / scale."""

    offset: Level = 0.0
    scale: Positive = 255.0


class OtherChannels(Table):
    """Channels of a network that predict another target than the affinities of nearest neighbours."""

    what: str
    """The target that they were trained on."""
    channels: int = Field(ge=1)
    """The number of these channels."""
    activation: Literal["sigmoid", "tanh", "softmax", "none"] = "sigmoid"
    """The function that turns these channels into values of the target."""


class ModelCard(Table):
    """The description of a model: its network, its training data and its scores."""

    file_format: ClassVar[FileFormat | None] = CARD

    name: str
    """The model's name."""
    architecture: str
    """A key of ``pipeline.models.MODELS``."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the architecture's constructor."""
    weights: str | None = None
    """File beside the card; none for a network without weights."""
    sha256: str | None = None
    """Checksum of that file."""
    patch_shape: Shape
    """Voxels (z, y, x) of one forward pass."""
    overlap: Voxel
    """Voxels that neighbouring patches share."""
    normalisation: Normalisation = Normalisation()
    """How raw values become the network's input."""
    offsets: tuple[Voxel, ...]
    """Channel k at voxel v is the affinity between v and v + offsets[k]; the first three are the nearest neighbours.
    Empty if the network predicts no affinities; then a run refuses it.
    """
    other_channels: tuple[OtherChannels, ...] = ()
    """The targets of the channels after the affinities, in order; ``models/heads.py`` says how they are stored."""
    activation: Literal["sigmoid", "none"] = "sigmoid"
    """The function that turns the network's output into affinities from 0 to 1."""
    resolution_nm: tuple[Positive, Positive, Positive]
    """Size in nm (z, y, x) of the voxels that it was trained on."""
    threshold: Share | None = None
    """Threshold for the merge tree of its affinities, or of its membranes if it has none, chosen on data that was not
    trained on; 0.5 if left out.
    """
    training_data: str = ""
    """The exact training data, with source and licence."""
    scores: dict[str, float | str] = Field(default_factory=dict)
    """Its scores, and the part of the data on which they were measured."""
    licence: str = ""
    """Licence of the weights."""

    _folder: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _fits_together(self) -> ModelCard:
        nearest = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
        if self.offsets[:3] != nearest and (self.offsets or not self.other_channels):
            raise ValueError(f"offsets begin with {self.offsets[:3]}; the first three must be {nearest}")
        if (self.weights is None) != (self.sha256 is None):
            raise ValueError("weights and sha256 belong together: give both or none")
        if self.weights is not None and Path(self.weights).name != self.weights:
            raise ValueError(f"weights is {self.weights!r}; it must be the name of a file that lies beside the card")
        if not self.overlap.indexes(self.patch_shape):
            raise ValueError(
                f"overlap is {self.overlap}; it must be at least 0 and less than the patch {self.patch_shape}"
            )
        return self

    @property
    def weights_url(self) -> str | None:
        """Path or URL of the weights."""
        return None if self.weights is None else f"{self._folder}/{self.weights}"

    @property
    def channels(self) -> int:
        """Channels of the network: affinities first, then the others."""
        return len(self.offsets) + sum(other.channels for other in self.other_channels)

    @property
    def image_channels(self) -> int:
        """Channels of the image that the network takes: 1 for grey, 3 for red, green and blue."""
        return stated_channels(self.arguments)

    @property
    def digest(self) -> str:
        """Digest of everything that affects the output; name, scores and texts do not."""
        lattice_free = [self.architecture, self.arguments, self.sha256, self.offsets, self.activation]
        return fingerprint(*lattice_free, self.normalisation, *self._revisions)

    @property
    def _revisions(self) -> list[int]:
        """The revisions of the architecture and of networks in its arguments, for those that were revised."""
        named = (self.architecture, *(self.arguments.get(key) for key in ("host", "sections", "volume")))
        return [REVISIONS[name] for name in named if name in REVISIONS]


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, ready to run."""

    card: ModelCard
    module: nn.Module

    @cached_property
    def digest(self) -> str:
        """The card's digest."""
        return self.card.digest


def bundled_names() -> list[str]:
    """Names of the models that come with petaseg."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/card.yaml"))


def bundled_folder(name: str) -> Path:
    """The folder of a bundled model; ``ModelError`` if there is none of this name."""
    if name not in bundled_names():
        raise ModelError(
            f"there is no model {name!r}; bundled are {', '.join(bundled_names())}; or give the path of a card.yaml"
        )
    return BUNDLED / name


def bundled_cards() -> list[ModelCard]:
    """The cards of all bundled models."""
    return [load_card(name) for name in bundled_names()]


def load_card(name: str | Path) -> ModelCard:
    """The card of a bundled model, of a folder, or of a card; the checksum of its weights is compared.

    name: a bundled name, or a path or URL.

    Raises ``ModelError`` with the value, the rule and the remedy.
    """
    place = absolute(_card_place(str(name)), ".")
    store, key = store_of(place)
    text = store.get_or_none(key)
    if text is None:
        names = ", ".join(bundled_names())
        raise ModelError(f"{place} does not exist; name a card.yaml, its folder, or one of {names}")
    try:
        card = read_config(text, place, model=ModelCard)
    except ConfigError as error:
        raise ModelError(str(error)) from None
    card._folder = parent_of(place) or ""
    _weights(card)
    find(MODELS, card.architecture, f"{place}: architecture is", error=ModelError)
    return card


def load_model(card: ModelCard, device: str = "cpu") -> LoadedModel:
    """Build the network and load its weights onto a device (``auto`` takes a GPU if there is one).

    Raises ``ModelError`` if arguments, weights and offsets do not belong together.
    """
    import torch

    module = build(card.architecture, card.arguments)
    if module.out_channels != card.channels:
        others = f" and {card.channels - len(card.offsets)} other channels" if card.other_channels else ""
        raise ModelError(
            f"the card of {card.name} has {len(card.offsets)} offsets{others}, its network {module.out_channels} "
            "outputs; each output needs its offset, or its place in other_channels: correct out_channels in the "
            "arguments, or the card"
        )
    if card.weights is not None:
        _fit(module, _tensors(card), card)
    where = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    return LoadedModel(card, module.to(where).eval())


def build(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    """A network with random weights; ``ModelError`` if the architecture is unknown or refuses its arguments."""
    network = load(find(MODELS, architecture, "architecture is", error=ModelError))
    _check_names(architecture, signature(network), arguments)
    try:
        return network(**arguments)  # type: ignore[no-any-return]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{architecture} refuses its arguments {sorted(arguments)}: {error}") from None


def _check_names(architecture: str, taken: Signature, arguments: dict[str, Any]) -> None:
    """Refuse arguments that a network does not take; a network that passes ``**options`` on checks them itself."""
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in taken.parameters.values()):
        return
    if unknown := [key for key in arguments if key not in taken.parameters]:
        raise ModelError(
            f"{architecture} refuses its arguments {', '.join(unknown)}: it does not know them; it takes "
            f"{', '.join(taken.parameters)}"
        )


def named_arguments(architecture: str, given: dict[str, Any] | str) -> dict[str, Any]:
    """The constructor's arguments: as given, or those of a named size of the architecture.

    Named sizes stand in ``SIZES`` beside the class. ``ModelError`` if the architecture has none of this name.
    """
    if not isinstance(given, str):
        return dict(given)
    sizes = sizes_of(find(MODELS, architecture, "architecture is", error=ModelError))
    if given not in sizes:
        known = f", or one of {', '.join(sizes)}" if sizes else ""
        raise ModelError(f"arguments of {architecture} is {given!r}; it must be a table{known}")
    return dict(sizes[given])


def stated_channels(arguments: Mapping[str, Any]) -> int:
    """Channels of the image that a network's arguments state as ``in_channels``; 1 if they do not."""
    found = arguments.get("in_channels", 1)
    return found if type(found) is int else 1


def sizes_of(path: str) -> dict[str, dict[str, Any]]:
    """The named sizes beside the class of a row of ``MODELS``; none if its module has no ``SIZES``."""
    return getattr(import_module(path.partition(":")[0]), "SIZES", {})


def save_model(folder: Path, module: nn.Module, card: ModelCard) -> ModelCard:
    """Write weights and card to a folder, the card last; returns the card with its checksum."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().float().contiguous().cpu() for name, tensor in module.state_dict().items()}
    data = save(tensors)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS_FILE, data)
    return write_card(
        folder,
        card.model_copy(update={"weights": WEIGHTS_FILE, "sha256": hashlib.sha256(data).hexdigest()}),
    )


def write_card(folder: Path, card: ModelCard) -> ModelCard:
    """Write the card of a folder that holds its weights already; returns it as it is read."""
    text = dump_yaml({**CARD.stamp, **card.model_dump(mode="json")}, width=110)
    _replace(folder / CARD_FILE, text.encode())
    return load_card(folder)


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def _card_place(name: str) -> str:
    """Path or URL of the card that a name stands for."""
    path = local_path(name)
    if path is None:
        return name if name.endswith((".yaml", ".yml")) else f"{name.rstrip('/')}/card.yaml"
    own = (path / "card.yaml").is_file() if name in bundled_names() else path.is_dir()
    if "/" not in name and path.suffix not in (".yaml", ".yml") and not own:
        return str(bundled_folder(name) / "card.yaml")
    return str(path / "card.yaml" if path.is_dir() else path)


def _weights(card: ModelCard) -> bytes:
    """The file of the weights, none for a network without; ``ModelError`` unless its checksum is the card's."""
    if card.weights_url is None:
        return b""
    store, key = store_of(card.weights_url)
    data = store.get_or_none(key)
    if data is None:
        raise ModelError(f"{card.weights_url} does not exist; the card of {card.name} names it: put it beside the card")
    found = hashlib.sha256(data).hexdigest()
    if found != card.sha256:
        raise ModelError(
            f"{card.weights_url} has sha256 {found[:12]}..., the card says {str(card.sha256)[:12]}...; "
            "the file was changed or damaged: fetch it again, or correct the card if the weights are meant"
        )
    return data


def _tensors(card: ModelCard) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(_weights(card))
    except SafetensorError as error:
        raise ModelError(
            f"{card.weights_url} is no safetensors file ({error}); "
            "weights of other formats must be converted, they are never run"
        ) from None


def _fit(module: nn.Module, tensors: dict[str, Any], card: ModelCard) -> None:
    from pipeline.models.pretrained import misfits

    if problems := misfits(module, tensors):
        raise ModelError(
            f"the weights of {card.name} do not fit {card.architecture}: {'; '.join(problems[:5])}; "
            "the card's arguments and its weights must come from the same training"
        )
    module.load_state_dict(tensors)
