"""``train.yaml`` as frozen, strict models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Amount, Count, CountOrZero, DataPath, ModelName, Positive, Shape, Share, Table, Voxel
from pipeline.evaluation.files import make_folder
from pipeline.geometry import Vec
from pipeline.models.spec import Normalisation
from pipeline.training.augmentation.settings import Augmentation
from pipeline.training.rule_specs import AnyRule, Bptt
from pipeline.training.sampling import Sampling
from pipeline.training.target_specs import Affinities, AnyTarget, Elsewhere, Targets

Offsets = Annotated[tuple[Annotated[Voxel, Elsewhere], ...], Field(min_length=1)]

NEAREST_AND_LONG_RANGE: Offsets = tuple(
    axis * -distance for distance in (1, 3, 9, 18) for axis in (Vec(1, 0, 0), Vec(0, 1, 0), Vec(0, 0, 1))
)
"""For isotropic voxels: 1, 3, 9 and 18 voxels along each axis. The long ones help the short ones to be learned."""


class LabelledVolume(Table):
    """An image with its labels; what label 0 means is up to the targets."""

    image: DataPath
    """Volume of the raw image, uint8."""
    labels: DataPath
    """Volume of labels on the same voxels."""
    mask: DataPath | None = None
    """Volume on the same voxels; where it is 0, nothing is asked."""
    start: Voxel | None = None
    """First voxel (z, y, x) of the part that is used."""
    stop: Voxel | None = None
    """One past the last voxel of the part that is used."""


class Synthetic(Table):
    """Made-up tissue instead of, or beside, real volumes."""

    volumes: Count = 4
    """How many are made for training; one more is made for validation."""
    shape: Shape = Vec(96, 160, 160)
    """Voxels of each."""
    seed: int = 1000
    """Seed of the first; the next ones follow."""


class TrainConfig(Table):
    """One training."""

    example: ClassVar[str] = "docs/training.md has an example"

    output: DataPath
    """Folder of the model: card, weights, checkpoint, log and curve."""
    name: str
    """The model's name."""
    volumes: tuple[LabelledVolume, ...] = ()
    """What to train on; several are sampled by their number of voxels."""
    synthetic: Synthetic | None = None
    """Made-up tissue to train on."""
    validation: LabelledVolume | None = None
    """What the score is measured on while training; never trained on. Required with ``volumes``."""
    architecture: str = "gamma_net_3d"
    """A key of ``pipeline.models.MODELS``."""
    arguments: dict[str, Any] | str = "tiny"
    """Arguments of the architecture, or one of its named sizes."""
    start_from: ModelName | None = None
    """Model whose weights are the beginning (a name or a card), to train it further or on other tissue."""
    backbone: DataPath | None = None
    """File of published weights of a ResNet or of VGG16, for the networks that have one in them."""
    offsets: Offsets = NEAREST_AND_LONG_RANGE
    """Affinities to predict; the first three are the nearest neighbours (z, y, x). Short for one target of them."""
    targets: Targets | None = None
    """What to predict instead, with which losses; whatever their order here, affinities are the first channels."""
    rule: AnyRule = Bptt()
    """How gradients of a recurrence are computed."""
    patch_shape: Shape = Vec(64, 64, 64)
    """Voxels of a training patch."""
    batch_size: Count = 1
    """Patches of one update."""
    steps: Count = 3000
    """Updates."""
    optimiser: Literal["adamw", "adam", "nadam", "sgd"] = "adamw"
    """adamw; adam as in the γ-Net and U-Net papers; nadam; sgd has a momentum of 0.95, as for the canvas network."""
    learning_rate: Positive = 2e-3
    """After the warm-up."""
    schedule: Literal["cosine", "polynomial", "plateau", "constant"] = "cosine"
    """How it falls: a cosine to 3 %; (1 - s / S)^0.9; halved whenever the score has not risen for a while; not."""
    plateau_validations: Count = 3
    """With schedule: plateau, this many validations without a better score halve the learning rate."""
    warmup_steps: CountOrZero = 100
    """The learning rate rises linearly over these."""
    weight_decay: Amount = 1e-4
    """Of the optimiser."""
    clip_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """The model is the running mean of the weights with this decay."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """bfloat16 runs convolutions by autocast, twice as fast on recent CPUs and GPUs; norms stay in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    devices: Count = 1
    """GPUs (or CPU processes) that train together, each on its own patches; gradients are averaged (DDP)."""
    threads: Count = 1
    """CPU threads of one process."""
    loaders: CountOrZero = 0
    """Processes that read and augment patches beside the training; 0 does it in turns."""
    seed: int = 0
    """Of weights, patches and augmentation."""
    validate_every: Count = 250
    """Updates between two validations and checkpoints."""
    patience: Count | None = None
    """Stop after this many validations without a better score; never if left out."""
    pictures: bool = True
    """Draw predictions on a validation patch at each validation, step by step of the recurrence."""
    sampling: Sampling = Sampling()
    """Which patches are drawn."""
    augmentation: Augmentation = Augmentation()
    """How patches are changed at random."""
    normalisation: Normalisation = Normalisation()
    """How raw values become the network's input."""
    overlap: Voxel | None = None
    """Voxels that neighbouring patches share in a run, for the card; a quarter of the patch if left out."""
    threshold: Share | None = None
    """For the card: where to cut the merge tree; choose it on the validation part."""
    training_data: str = ""
    """For the card: what was trained on, with source and licence."""
    licence: str = ""
    """For the card: licence of the weights."""

    @property
    def channels(self) -> tuple[AnyTarget, ...]:
        """All targets in the order of the network's channels: affinities, then the others as they are listed."""
        listed = (Affinities(offsets=self.offsets),) if self.targets is None else self.targets
        return tuple(sorted(listed, key=lambda target: not isinstance(target, Affinities)))

    @property
    def card_overlap(self) -> Voxel:
        """``overlap``, or a quarter of the patch."""
        return self.overlap or self.patch_shape // 4

    def make_output(self) -> Path:
        """The output folder, made if it is not there; ``ConfigError`` if there can be none."""
        return make_folder(self.output, "output")

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
