"""``train.yaml`` as frozen, strict models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.base import (
    SMALLEST,
    Cores,
    Count,
    CountOrZero,
    DataPath,
    ModelName,
    Positive,
    Seed,
    Shape,
    Share,
    Table,
    Voxel,
)
from pipeline.config.cluster import ClusterTable
from pipeline.config.paths import with_paths
from pipeline.evaluation.files import make_folder
from pipeline.geometry import Vec
from pipeline.models.spec import Normalisation, named_arguments, stated_channels
from pipeline.storage import absolute
from pipeline.training.augmentation.settings import Augmentation
from pipeline.training.rule_specs import AnyRule
from pipeline.training.rules import Bptt
from pipeline.training.sampling import Sampling
from pipeline.training.target_kinds import Affinities, Elsewhere
from pipeline.training.target_specs import AnyTarget, Targets

Offsets = Annotated[tuple[Annotated[Voxel, Elsewhere], ...], Field(min_length=1)]

NEAREST_AND_LONG_RANGE: Offsets = tuple(
    axis * -distance for distance in (1, 3, 9, 18) for axis in (Vec(1, 0, 0), Vec(0, 1, 0), Vec(0, 0, 1))
)
"""For isotropic voxels: 1, 3, 9 and 18 voxels along each axis. The long ones help the short ones to be learned."""


class LabelledVolume(Table):
    """An image with its labels; the targets define what label 0 means."""

    image: DataPath
    """Volume of the raw image, uint8; of three channels for a network with ``in_channels: 3``."""
    labels: DataPath
    """Volume of labels on the same voxels."""
    mask: DataPath | None = None
    """Volume on the same voxels or a coarser mip; where it is 0, voxels are masked: no loss sees them."""
    start: Voxel | None = None
    """First voxel (z, y, x) of the part that is used."""
    stop: Voxel | None = None
    """One past the last voxel of the part that is used."""
    oversampling: Positive = 1.0
    """Patches are drawn from this part as if it had so many times its voxels: above 1 for a few good labels."""


class Synthetic(Table):
    """Made-up volumes instead of, or beside, real ones."""

    what: Literal["tissue", "section_maps"] = "tissue"
    """Tissue, or stacks of maps that a network found in thick sections, with labels (``docs/thick-sections.md``)."""

    volumes: Count = 4
    """The number of volumes made for training; one more is made for validation."""
    shape: Shape = Vec(96, 160, 160)
    """Voxels (z, y, x) of each volume."""
    seed: Seed = 1000
    """Seed of the first volume; each next volume has the next number."""


Rate = Annotated[float, Field(ge=SMALLEST, le=100)]
"""A learning rate."""


class ParameterGroup(Table):
    """Parameters with a learning rate of their own."""

    match: str
    """Pattern of their names, such as vgg.*: * is any text, ? any letter; the first group that fits a name has it."""
    learning_rate: Annotated[float, Field(ge=0, le=100)]
    """Their learning rate after the warm-up; the schedule applies to it too. With 0 they are not trained."""


class TrainConfig(Table):
    """One training."""

    example: ClassVar[str] = "docs/training.md has an example"

    output: DataPath
    """Folder of the model: card, weights, checkpoint, log and curve."""
    name: str
    """The model's name."""
    volumes: tuple[LabelledVolume, ...] = ()
    """Volumes to train on; several are sampled in proportion to their voxels, times ``oversampling``."""
    synthetic: Synthetic | None = None
    """Made-up volumes to train on."""
    validation: LabelledVolume | None = None
    """Volume on which the score is measured; it is never trained on. Required with ``volumes``."""
    architecture: str = "gamma_net_3d"
    """A key of ``pipeline.models.MODELS``."""
    arguments: dict[str, Any] | str = "tiny"
    """Arguments of the architecture, or one of its named sizes."""
    start_from: ModelName | None = None
    """Model (a name or a card) whose weights the training starts from, to train it further or on other tissue."""
    backbone: DataPath | None = None
    """File of published weights of a ResNet or of VGG16, for the networks that have one in them."""
    offsets: Offsets = NEAREST_AND_LONG_RANGE
    """Affinities to predict; the first three are the nearest neighbours (z, y, x). A short form of ``targets``."""
    targets: Targets | None = None
    """Targets to predict instead of ``offsets``, with their losses; affinities always are the first channels."""
    rule: AnyRule = Bptt()
    """The rule by which gradients of a recurrence are computed."""
    patch_shape: Shape = Vec(64, 64, 64)
    """Voxels of a training patch."""
    batch_size: Count = 1
    """Patches of one update."""
    steps: Count = 3000
    """The number of updates."""
    optimiser: Literal["adamw", "adam", "nadam", "sgd"] = "adamw"
    """adamw; adam as in the γ-Net and U-Net papers; nadam; sgd with ``momentum``."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Momentum of sgd: 0.95 as for the canvas network."""
    learning_rate: Rate = 2e-3
    """The learning rate after the warm-up."""
    groups: tuple[ParameterGroup, ...] = ()
    """Parameters with other learning rates, by patterns of their names; all others have ``learning_rate``."""
    schedule: Literal["cosine", "polynomial", "plateau", "constant"] = "cosine"
    """Fall of the learning rate: by a cosine to 3 %; as (1 - s / S)^0.9; halved on a plateau of the score; none.
    """
    plateau_validations: Count = 3
    """With schedule: plateau, this many validations without a better score halve the learning rate."""
    warmup_steps: CountOrZero = 100
    """The learning rate rises linearly over this many steps."""
    weight_decay: Annotated[float, Field(ge=0, le=100)] = 1e-4
    """Weight decay of the optimiser."""
    clip_norm: Positive = 1.0
    """Gradients of a larger norm are scaled down to this norm."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """The model is the running mean of the weights with this decay."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """bfloat16 runs convolutions by autocast, twice as fast on recent CPUs and GPUs; norms stay in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device to train on; auto takes a GPU if there is one."""
    devices: Cores = 1
    """GPUs (or CPU processes) of a node that train together, each on its own patches; gradients are averaged (DDP)."""
    nodes: Count = 1
    """Nodes that train together, each with as many ``devices``; the command is started on each of them by torchrun."""
    threads: Cores = 1
    """CPU threads of one process."""
    loaders: Annotated[int, Field(ge=0, le=4096)] = 0
    """Processes that read and augment patches during the training; with 0, the training process does so itself."""
    seed: Seed = 0
    """Seed of weights, patches and augmentation."""
    validate_every: Count = 250
    """Updates between two validations and checkpoints."""
    patience: Count | None = None
    """Stop after this many validations without a better score; never if left out."""
    pictures: bool = True
    """Draw predictions on a validation patch at each validation, step by step of the recurrence."""
    sampling: Sampling = Sampling()
    """Which patches are drawn."""
    augmentation: Augmentation = Augmentation()
    """Random changes of patches."""
    normalisation: Normalisation = Normalisation()
    """How raw values become the network's input."""
    overlap: Voxel | None = None
    """Voxels that neighbouring patches share in a run, for the card; a quarter of the patch if left out."""
    threshold: Share | None = None
    """For the card: the threshold of the merge tree, or of a mask; chosen on the validation part if left out."""
    choose_threshold: bool = True
    """Choose the threshold after the training by a run on a box of the validation part: by VOI, or a mask's IoU."""
    threshold_box: Shape = Vec(64, 192, 192)
    """The largest box (z, y, x), in the middle of the validation part, on which the threshold is chosen."""
    training_data: str = ""
    """For the card: the training data, with source and licence."""
    licence: str = ""
    """For the card: licence of the weights."""
    cluster: ClusterTable = ClusterTable()
    """Where `petaseg submit` trains; the job has the memory, walltime and restarts of ``cluster.driver``."""

    @property
    def image_channels(self) -> int:
        """Channels of the images that the network takes."""
        return stated_channels(named_arguments(self.architecture, self.arguments))

    @property
    def channels(self) -> tuple[AnyTarget, ...]:
        """All targets in the order of the network's channels: affinities, then the others as they are listed."""
        listed = (Affinities(offsets=self.offsets),) if self.targets is None else self.targets
        return tuple(sorted(listed, key=lambda target: not isinstance(target, Affinities)))

    @property
    def processes(self) -> int:
        """Processes that train together, on all nodes."""
        return self.devices * self.nodes

    @property
    def card_overlap(self) -> Voxel:
        """``overlap``, or a quarter of the patch."""
        return self.overlap or self.patch_shape // 4

    def make_output(self) -> Path:
        """The output folder; it is made if it is missing. ``ConfigError`` if it cannot be made."""
        return make_folder(self.output, "output")

    @model_validator(mode="after")
    def _has_no_workers(self) -> TrainConfig:
        unused, default = ("inference_workers", "workers"), ClusterTable()
        given = [name for name in unused if getattr(self.cluster, name) != getattr(default, name)]
        if given:
            raise ValueError(
                f"cluster.{given[0]} is given; a training is one job without workers: describe it in cluster.driver"
            )
        return self

    @model_validator(mode="after")
    def _patches_go_on(self) -> TrainConfig:
        if not self.card_overlap.indexes(self.patch_shape):
            raise ValueError(
                f"overlap is {list(self.card_overlap)}; it must be at least 0 and less than the patch "
                f"{list(self.patch_shape)}: a quarter of it is usual, and taken if overlap is left out"
            )
        return self

    @model_validator(mode="after")
    def _says_once_what_to_predict(self) -> TrainConfig:
        if self.targets is not None and self.offsets != NEAREST_AND_LONG_RANGE:
            raise ValueError("both offsets and targets are given; move the offsets into a target {what: affinities}")
        return self

    @model_validator(mode="after")
    def _begins_once(self) -> TrainConfig:
        if self.start_from is not None and self.backbone is not None:
            raise ValueError("both start_from and backbone are given; weights begin but once: leave one out")
        return self

    @model_validator(mode="after")
    def _pastes_objects(self) -> TrainConfig:
        strange = [target.what for target in self.channels if not target.holds_objects]
        if strange and self.augmentation.copy_paste:
            raise ValueError(
                f"augmentation.copy_paste is {self.augmentation.copy_paste:g} and targets have {strange[0]}; only "
                "labels that are ids of objects can be pasted under a new id: leave copy_paste out"
            )
        return self

    @model_validator(mode="after")
    def _pairs_fit_in_patches(self) -> TrainConfig:
        for target in self.channels:
            if isinstance(target, Affinities) and not any(abs(o).below(self.patch_shape) for o in target.in_volume):
                raise ValueError(
                    f"offsets are {[list(offset) for offset in target.offsets]}; none of them stays inside a patch of "
                    f"{list(self.patch_shape)}, so nothing is learned: shorten them, or enlarge the patch"
                )
        return self

    @model_validator(mode="after")
    def _chunks_hold_patches(self) -> TrainConfig:
        chunk = self.sampling.chunk_shape
        if chunk is not None and not self.patch_shape.at_most(chunk):
            raise ValueError(f"sampling.chunk_shape is {chunk}; it must hold a patch of {self.patch_shape}: enlarge it")
        return self

    @model_validator(mode="after")
    def _has_data(self) -> TrainConfig:
        if not self.volumes and self.synthetic is None:
            raise ValueError("nothing to train on; give volumes (image and labels), or synthetic: {}")
        if self.volumes and self.validation is None:
            raise ValueError("no validation; name a part of a labelled volume that is not in volumes")
        return self


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same training with paths that count from this folder made absolute."""
    return with_paths(config, lambda path: absolute(path, "."))
