"""What the stages of a run are made from: its checked configuration, its voxels, and its opened and checked inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.run_file import Inference, RunConfig
from pipeline.geometry import BoundingBox, Vec
from pipeline.models.heads import Head
from pipeline.segmentation.supervoxels import SupervoxelRules
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


@dataclass(frozen=True)
class Truth:
    """What a segmentation is scored against: labels on the same voxels, skeletons, or both."""

    labels: str | None
    skeletons: str | None
    fingerprint: str
    box: BoundingBox
    """The part that is scored."""


@dataclass(frozen=True)
class Inputs:
    """What a run reads, checked; opened volumes are not kept, so it travels."""

    url: str
    """The image, or the given affinities."""
    spec: VolumeSpec
    fingerprint: str
    roi: BoundingBox
    affinity_offsets: tuple[Vec, ...]
    mask_url: str | None
    mask_fingerprint: str
    rules: SupervoxelRules
    network: Network | None
    """``None`` if the affinities were given."""
    truth: Truth | None
    """``None`` if there is no ground truth."""


@dataclass(frozen=True)
class Setup:
    """A run, seen by the stages that are made for it."""

    config: RunConfig
    layout: Layout
    inputs: Inputs
