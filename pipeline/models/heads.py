"""The heads of a model: what groups of its channels predict, and how a run stores each of them as uint8.

    card.yaml                                   heads
    offsets: [...]                              affinities, the first channels of the network
    other_channels: [{what: membranes, ...}]    membranes, the channels after them

A value of 0 to 1 is stored as round(255 v). What is from -1 to 1 is first moved to 0 to 1, so 0 becomes 127.5.
``docs/predictions.md`` has the table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import ConfigError
from pipeline.geometry import Vec, as_vec

if TYPE_CHECKING:
    from pipeline.models.spec import ModelCard, OtherChannels

AFFINITIES = "affinities"
MEMBRANES = "membranes"
FOREGROUND = "foreground"
CLASSES = "classes"
SIGNED_DISTANCE = "signed_distance"
NEAREST = 3
"""Affinities that a run stores: those of the nearest neighbours along z, y, x."""
KNOWN = (
    *(AFFINITIES, MEMBRANES, FOREGROUND, "contours", "contour_map", SIGNED_DISTANCE, "instance_distance"),
    *("shape_descriptors", CLASSES),
)
"""The heads that `petaseg train` can make; other programs may name theirs as they like."""
DIRECTED = (AFFINITIES, "shape_descriptors")
"""Heads whose channels belong to directions, so that they change when an image is turned."""
LOW_AT_BORDERS, HIGH_AT_BORDERS = (AFFINITIES, "foreground"), (MEMBRANES, "contours", "contour_map")
"""Heads whose least, or largest, value over several copies is the one of the copy that sees a border."""
NEEDED = "affinities that begin with the nearest neighbours, [-1, 0, 0], [0, -1, 0], [0, 0, -1], or membranes"
"""What neurons are made of."""
WITH_EXTREMES = "mean+extremes"
"""The rule of test-time augmentation that stores the least and the largest value of the copies beside their mean."""
EXTREMES = ("_least", "_largest")
"""What is added to a head's name for these two volumes."""
VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""Names that a volume can have."""

Mapping = Literal["probability", "signed", "level", "classes"]
"""What the stored numbers of a head mean."""
Activation = Literal["sigmoid", "tanh", "softmax", "none"]
Source = Literal["auto", "affinities", "membranes"]

MAPPINGS: dict[Mapping, tuple[str, tuple[float, float]]] = {
    "probability": ("round(255 v)", (0.0, 1.0)),
    "signed": ("round(127.5 (v + 1))", (-1.0, 1.0)),
    "level": ("round(255 * expected level / levels)", (0.0, 1.0)),
    "classes": ("round(255 p), one channel a class", (0.0, 1.0)),
}
"""Mapping -> its formula, and the values that are stored as 0 and as 255."""


@dataclass(frozen=True)
class Head:
    """A group of neighbouring channels of a network that predict one target."""

    name: str
    """The target; the volume in a run directory has the same name."""
    first: int
    """The first of its channels in the network's output."""
    channels: int
    """The number of its channels in the network's output."""
    activation: Activation
    """The function that turns these channels into values of the target."""
    offsets: tuple[Vec, ...] = ()
    """The offsets of affinities that begin with the nearest neighbours; empty for all other heads."""
    affinities: int = NEAREST
    """The number of affinities that are stored, from the first."""

    @property
    def mapping(self) -> Mapping | None:
        """What its stored numbers mean; ``None`` if its values have no known limits, so that it cannot be stored."""
        if self.activation == "softmax":
            return "level" if self.name == "instance_distance" else "classes"
        if self.activation == "tanh":
            return "signed"
        return "probability" if self.activation == "sigmoid" or self.offsets else None

    @property
    def makes_neurons(self) -> bool:
        """True for affinities of nearest neighbours, and for membranes: neurons can be made of it."""
        return bool(self.offsets) or (self.name == MEMBRANES and self.mapping == "probability" and self.channels == 1)

    @property
    def stored_channels(self) -> int:
        """Channels of its volume."""
        if self.offsets:
            return self.affinities
        return 1 if self.mapping == "level" else self.channels

    @property
    def turns(self) -> bool:
        """True if it is known how its channels change when the image is turned, as test-time augmentation does."""
        if self.name == AFFINITIES:
            return bool(self.offsets)
        return self.name in KNOWN or self.stored_channels == 1 or self.mapping == "classes"

    @property
    def outside(self) -> tuple[float, ...]:
        """The value, from 0 to 1, of each stored channel where there is no image: no neuron and no object is there."""
        rest = (0.0,) * (self.stored_channels - 1)
        return (float(self.name == MEMBRANES or self.mapping == "classes"), *rest)

    @property
    def attributes(self) -> dict[str, Any]:
        """What the metadata of its volume say about the stored numbers."""
        assert self.mapping is not None
        formula, (low, high) = MAPPINGS[self.mapping]
        said = {"name": self.name, "mapping": self.mapping, "stored": formula, "at_0": low, "at_255": high}
        offsets = [list(offset) for offset in self.offsets[: self.affinities]]
        return {"petaseg_head": {**said, "offsets": offsets} if offsets else said}

    def as_plain(self) -> dict[str, Any]:
        """All of its fields as plain values, for fingerprints."""
        return asdict(self)


def volumes_of(heads: Sequence[Head], rule: str) -> tuple[tuple[str, Head], ...]:
    """The name of each volume that a run stores, and its head, for a rule of test-time augmentation."""
    added = ("", *EXTREMES) if rule == WITH_EXTREMES else ("",)
    return tuple((head.name + each, head) for each in added for head in heads)


def heads_of(card: ModelCard) -> tuple[Head, ...]:
    """The heads of a card, in the order of the network's channels."""
    return heads_of_channels(card.offsets, card.other_channels, card.activation)


def heads_of_channels(
    offsets: Sequence[Sequence[int]], others: Sequence[OtherChannels], activation: Activation = "sigmoid"
) -> tuple[Head, ...]:
    """The heads of a network with these affinities first and these channels after them; see ``ModelCard``."""
    heads, first = [], len(offsets)
    if offsets:
        places = tuple(as_vec(offset, "offset") for offset in offsets)
        heads.append(Head(AFFINITIES, 0, first, activation, places))
    for other in others:
        heads.append(_head(other, first))
        first += other.channels
    return tuple(heads)


def _head(other: OtherChannels, first: int) -> Head:
    return Head(other.what, first, other.channels, other.activation)


def described(heads: Sequence[Head]) -> str:
    """``affinities, membranes``; or that there are none."""
    return ", ".join(head.name for head in heads) or "nothing"


def chosen_heads(card: ModelCard, names: Sequence[str]) -> tuple[Head, ...]:
    """The named heads, in the order of the card; ``ConfigError`` if one is missing, ambiguous, or cannot be stored."""
    heads = heads_of(card)
    for name in names:
        found = [head for head in heads if head.name == name]
        if not found:
            raise ConfigError(
                f"model {card.name} has no head {name!r}; it predicts {described(heads)}: name one of these, or train "
                "a model with that target"
            )
        _check_storable(card, found)
    return tuple(head for head in heads if head.name in names)


def makes_mask(heads: Sequence[Head]) -> bool:
    """True if the threshold of the card is about a mask of the foreground, since no neurons can be made."""
    found = [head for head in heads if head.name == FOREGROUND]
    is_single = len(found) == 1 and found[0].mapping == "probability" and found[0].channels == 1
    return is_single and not any(head.makes_neurons for head in heads)


def storable(heads: Sequence[Head]) -> tuple[Head, ...]:
    """Those heads of a model that a run can store."""
    names = [head.name for head in heads]
    return tuple(h for h in heads if h.mapping and names.count(h.name) == 1 and VOLUME.fullmatch(h.name))


def uses(heads: Sequence[Head]) -> str:
    """What a run can make of a model's heads: ``neurons (from membranes); masks and objects; volumes: membranes``."""
    stored = storable(heads)
    made = [head.name for head in stored if head.makes_neurons]
    lost = [head.name for head in heads if head not in stored]
    neurons = f"neurons (from {' or '.join(made)})" if made else f"no neurons, which need {NEEDED}"
    rest = f"; not {', '.join(dict.fromkeys(lost))}, which cannot be stored" if lost else ""
    others = [head for head in stored if head.name not in DIRECTED and not head.makes_neurons]
    decoded = f"; masks and objects (from {' or '.join(head.name for head in others)})" if others else ""
    classes = [head.name for head in stored if head.mapping == "classes"]
    decoded += f"; a class map (from {' or '.join(classes)})" if classes else ""
    return f"{neurons}{decoded}; volumes: {described(stored)}{rest}"


def source_of(wanted: Source, usable: Sequence[str]) -> str:
    """What neurons are made of: affinities or membranes; affinities if there are both and nothing is said.

    wanted: ``supervoxels.source``. usable: which of the two there are. Raises ``ConfigError`` if it is not there.
    """
    named = (AFFINITIES, MEMBRANES) if wanted == "auto" else (wanted,)
    found = next((name for name in named if name in usable), None)
    if found is None:
        wants = f"supervoxels.source is {wanted}; " if wanted != "auto" else ""
        raise ConfigError(
            f"{wants}neurons are made of {' or '.join(named)}, and this run has {' and '.join(usable) or 'neither'}: "
            "add one to inference.heads, or give it (input.affinities, input.membranes); or choose segmentation.kind: "
            "mask or objects, which are made of other heads"
        )
    return found


def _check_storable(card: ModelCard, found: Sequence[Head]) -> None:
    """Refuse a head that another one is called like, that is no name of a volume, or whose values have no limits."""
    head = found[0]
    if len(found) > 1:
        raise ConfigError(
            f"model {card.name} has {len(found)} heads called {head.name!r}; each is stored as {head.name}.zarr, so "
            "names must differ: correct what in other_channels of its card"
        )
    if not VOLUME.fullmatch(head.name):
        raise ConfigError(
            f"model {card.name} has a head {head.name!r}; it is stored as a volume of that name, which may have "
            "letters, digits, - and _: correct what in other_channels of its card"
        )
    if head.mapping is None:
        raise ConfigError(
            f"head {head.name} of model {card.name} has activation none; its values have no limits, so they cannot be "
            "stored as uint8: train it with a loss whose output is sigmoid, tanh or softmax"
        )
