"""What the stages of a run are made from: its checked configuration, its voxels, and its opened and checked inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.run_file import Inference, RunConfig
from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.models.heads import AFFINITIES, MEMBRANES, Head, Mapping, source_of
from pipeline.segmentation.edits import Edit
from pipeline.segmentation.far_contacts import NEAREST
from pipeline.segmentation.supervoxels import SupervoxelRules
from pipeline.stages.base import Stage
from pipeline.stages.fastest import Fastest
from pipeline.stages.heads import HeadSource, given_mapping
from pipeline.stages.layout import Layout
from pipeline.volumes.base import VolumeSpec

if TYPE_CHECKING:
    from pipeline.models.spec import ModelCard


@dataclass(frozen=True)
class Network:
    """The model of a run with the lattice on which it runs."""

    card_path: str
    card: ModelCard
    patch_shape: Vec
    overlap: Vec
    config: Inference
    heads: tuple[Head, ...]
    """What the run stores of its output."""
    fastest: Fastest | None = None
    """With ``precision: fastest`` what was measured; ``None`` until then."""

    @property
    def affinity_offsets(self) -> tuple[Vec, ...]:
        """The offsets of the affinities that are stored; those of the nearest neighbours if none are."""
        found = next((head for head in self.heads if head.offsets), None)
        return NEAREST if found is None else found.offsets[: found.affinities]


@dataclass(frozen=True)
class Truth:
    """What a segmentation is scored against: labels on the same voxels, skeletons, or both."""

    labels: str | None
    skeletons: str | None
    fingerprint: str
    box: BoundingBox
    """The part that is scored."""


@dataclass(frozen=True)
class Organelle:
    """Objects that lie in neurons: labels on the same voxels."""

    name: str
    url: str
    fingerprint: str
    box: BoundingBox
    """What they cover of the region of interest."""


@dataclass(frozen=True)
class Inputs:
    """What a run reads, checked; opened volumes are not kept, so it travels."""

    url: str
    """The image, the first of the given heads, or the given labels."""
    spec: VolumeSpec
    fingerprint: str
    roi: BoundingBox
    affinity_offsets: tuple[Vec, ...]
    mask_url: str | None
    mask_fingerprint: str
    rules: SupervoxelRules
    network: Network | None
    """``None`` if heads or labels were given."""
    truth: Truth | None
    """``None`` if there is no ground truth."""
    given: tuple[HeadSource, ...] = ()
    """The heads that were given; none if a network predicts them."""
    image_url: str | None = None
    """The image, also beside given labels; ``None`` if there is none."""
    image_fingerprint: str = ""
    organelles: tuple[Organelle, ...] = ()
    """In the order of their names."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads that the run has, stored or given."""
        stored = () if self.network is None else self.network.heads
        return (*(head.name for head in stored), *(head.name for head in self.given))

    def meaning_of(self, name: str) -> tuple[Mapping, int]:
        """What the stored numbers of a head of this run mean, and the number of its channels."""
        stored = () if self.network is None else self.network.heads
        for head in stored:
            if head.name == name and head.mapping is not None:
                return head.mapping, head.stored_channels
        source = next(head for head in self.given if head.name == name)
        return given_mapping(name), source.count

    @property
    def sources(self) -> tuple[str, ...]:
        """Those of them of which neurons can be made."""
        if self.network is not None:
            return tuple(head.name for head in self.network.heads if head.makes_neurons)
        return tuple(head.name for head in self.given if head.name in (AFFINITIES, MEMBRANES))


@dataclass(frozen=True)
class Setup:
    """A run, seen by the stages that are made for it."""

    config: RunConfig
    layout: Layout
    inputs: Inputs
    edits: tuple[Edit, ...] = ()
    """The corrections of its neurons, in their order."""

    @property
    def source(self) -> str:
        """The head of which neurons are made: affinities or membranes."""
        return source_of(self.config.supervoxels.source, self.inputs.sources)

    @property
    def card_threshold(self) -> float | None:
        """The threshold of the model's card, if the run makes neurons, and of the head that it is about."""
        network = self.inputs.network
        if network is None or self.config.segmentation.kind != "neurons":
            return None
        if network.card.offsets and self.source != AFFINITIES:
            return None
        return network.card.threshold

    def head(self, name: str, predicted: Stage | None) -> HeadSource:
        """A head of this run, for a stage that reads it; ``ConfigError`` if the run has none of this name.

        predicted: the stage that predicts the heads, if the run has it: ``before.get(BlendHeads.name)``.
        """
        if name not in self.inputs.heads:
            raise ConfigError(
                f"this run has no head {name!r}; it has {', '.join(self.inputs.heads)}: add it to inference.heads, or "
                "to input.heads if it was predicted before"
            )
        if predicted is not None:
            return HeadSource(name, self.layout.volume_url(name), predicted.fingerprint)
        return next(head for head in self.inputs.given if head.name == name)
