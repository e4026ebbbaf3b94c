"""All checks of a self-training, before anything is written or computed."""

from __future__ import annotations

from pipeline.errors import ConfigError
from pipeline.few_labels.rounds import RECORD, SelfTraining, part_of
from pipeline.few_labels.self_training import refuse_other
from pipeline.geometry import BoundingBox
from pipeline.runs.inputs import RESOLUTION_FACTOR
from pipeline.runs.origin import require_finished
from pipeline.training.config import LabelledVolume
from pipeline.training.dry_run import TrainingCheck, check_output, dry_run
from pipeline.training.trainer import check_nodes
from pipeline.volumes import open_volume
from pipeline.volumes.base import Volume
from pipeline.volumes.image_rules import check_image
from pipeline.volumes.location import parse_location
from pipeline.volumes.places import overlap, place_of, real


def check(plan: SelfTraining) -> TrainingCheck:
    """Check the training, the image, and that both fit; ``ConfigError``, ``VolumeError`` or ``ModelError`` if not."""
    config = plan.config
    if not 0 < plan.sure < 1:
        raise ConfigError(f"--sure is {plan.sure}; it must lie between 0 and 1: 0.8 keeps p above 0.9 and below 0.1")
    _ = plan.rule  # refuses targets of which nothing can be kept
    check_nodes(config)
    if config.validation is None:
        raise ConfigError(
            "the training has no validation part, which says whether self-training helps: give `validation` a labelled "
            "volume in the training file"
        )
    image = open_volume(plan.unlabelled)
    require_finished(plan.unlabelled)
    check_image(image, config.image_channels, f"{config.architecture} with these arguments")
    _check_box(plan, image)
    _check_sizes(plan, image, config.validation)
    _check_folders(plan)
    refuse_other(plan, plan.output / RECORD)
    return dry_run(config)


def whole_or(box: BoundingBox | None, image: str) -> BoundingBox:
    """A box, or all voxels of the image."""
    return open_volume(image).spec.bounds if box is None else box


def _check_box(plan: SelfTraining, image: Volume) -> None:
    """Refuse a part of the image that is not there, holds no patch, or is the validation part."""
    bounds, patch = image.spec.bounds, plan.config.patch_shape
    if not bounds.contains(plan.box):
        raise ConfigError(f"--box is {plan.box}; {plan.unlabelled} covers {bounds}: choose a part of it")
    if not patch.at_most(plan.box.shape):
        raise ConfigError(
            f"patch_shape is {list(patch)}, and {list(plan.box.shape)} voxels of {plan.unlabelled} are used: choose a "
            "smaller patch, or a larger box"
        )
    validation = plan.config.validation
    assert validation is not None
    shared = part_of(validation).intersect(plan.box)
    if _image(validation.image) == _image(plan.unlabelled) and not shared.empty:
        raise ConfigError(
            f"{shared} of {plan.unlabelled} is in the validation part, which must not be trained on: choose another "
            "part of the image with --box"
        )


def _image(url: str) -> tuple[str, str | None, int]:
    location = parse_location(url)
    return place_of(url), location.dataset, location.mip


def _check_sizes(plan: SelfTraining, image: Volume, validation: LabelledVolume) -> None:
    """Refuse voxels of another size, as the run would after hours of training."""
    trained, found = open_volume(validation.image).spec.resolution_nm, image.spec.resolution_nm
    if max(max(a / b, b / a) for a, b in zip(trained, found, strict=True)) > RESOLUTION_FACTOR:
        raise ConfigError(
            f"{plan.unlabelled} has voxels of {list(found)} nm, the labelled tissue of {list(trained)} nm; each side "
            f"may differ by a factor of {RESOLUTION_FACTOR} at most: choose another mip (#mip=1) or image"
        )


def _check_folders(plan: SelfTraining) -> None:
    """Refuse an output folder that is that of the training, that lies in a volume, or that cannot be written."""
    own = real(str(plan.output))
    if own == real(plan.config.output):
        raise ConfigError(f"--output is {plan.output}, the folder of the first model: name another folder")
    if overlap(own, place_of(plan.unlabelled)) in ("is", "lies in"):
        raise ConfigError(f"--output is {plan.output}, which is the volume {plan.unlabelled}, or in it: name another")
    check_output(plan.output)
