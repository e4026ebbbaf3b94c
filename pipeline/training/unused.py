"""The keys of a training file that another key, or the place of the training, makes useless, in one table.

The rule is that of run files: see ``pipeline/config/unused.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import cluster_use
from pipeline.config.cluster import ClusterTable
from pipeline.config.unused import NoUse, Unused, refuse, unused
from pipeline.training.config import TrainConfig


@dataclass(frozen=True)
class TrainingCase:
    """A training, and where it computes."""

    config: TrainConfig
    cluster: str | None = None
    """The cluster on which it is a job; ``None`` for this machine."""

    @property
    def table(self) -> ClusterTable:
        """Its table ``cluster``."""
        return self.config.cluster


STRENGTHS = {
    "rescale": ("rescale_in_plane",),
    "warp": ("warp_degrees", "warp_stretch"),
    "elastic": ("elastic_voxels", "elastic_spacing"),
    "misalignment": ("misalignment_voxels", "misalignment_slip", "misalignment_rotation"),
    "missing_sections": ("missing_most", "missing_partial"),
    "blurred_sections": ("blurred_most", "blurred_voxels"),
    "motion_blur": ("motion_voxels",),
}
"""A random change -> how it is made, which nothing uses if no patch is changed so."""


def _strength(change: str, keys: Sequence[str]) -> NoUse[TrainingCase]:
    def why(case: TrainingCase) -> str:
        return "" if getattr(case.config.augmentation, change) else f"with augmentation.{change}: 0"

    return NoUse(tuple(f"augmentation.{key}" for key in keys), why, f"set augmentation.{change}")


def _without_cuts(case: TrainingCase) -> str:
    change = case.config.augmentation
    return "" if change.cut_blur or change.cut_noise else "with augmentation.cut_blur: 0 and cut_noise: 0"


def _without_masks(case: TrainingCase) -> str:
    return "" if any(volume.mask for volume in case.config.volumes) else "without a mask in volumes"


def _rejects_nothing(case: TrainingCase) -> str:
    sampling = case.config.sampling
    return "" if sampling.foreground or sampling.objects else "with sampling.foreground: 0 and objects: 0"


def _not_chosen(case: TrainingCase) -> str:
    if case.config.threshold is not None:
        return f"with threshold: {case.config.threshold:g}"
    return "" if case.config.choose_threshold else "with choose_threshold: false"


def _in_vain(case: TrainingCase) -> str:
    return "" if case.config.threshold is None else f"with threshold: {case.config.threshold:g}"


def _on_no_gpu(case: TrainingCase) -> str:
    return "" if case.config.device == "cuda" or case.cluster is None else f"with device: {case.config.device}"


def _reference(case: TrainingCase) -> str:
    return "with rule.reference_stopping: true" if getattr(case.config.rule, "reference_stopping", False) else ""


ROWS: tuple[NoUse[TrainingCase], ...] = (
    NoUse(
        ("momentum",),
        lambda case: "" if case.config.optimiser == "sgd" else f"with optimiser: {case.config.optimiser}",
        "set optimiser: sgd",
        refused=True,
    ),
    NoUse(
        ("plateau_validations",),
        lambda case: "" if case.config.schedule == "plateau" else f"with schedule: {case.config.schedule}",
        "set schedule: plateau",
        refused=True,
    ),
    NoUse(
        ("offsets",),
        lambda case: "" if case.config.targets is None else "with targets",
        "move them into a target {what: affinities}",
        refused=True,
    ),
    NoUse(
        ("sampling.patches_per_chunk",),
        lambda case: "" if case.config.sampling.chunk_shape else "without sampling.chunk_shape",
        "set sampling.chunk_shape",
        refused=True,
    ),
    NoUse(("sampling.reject",), _rejects_nothing, "set sampling.foreground or sampling.objects", refused=True),
    NoUse(("sampling.valid",), _without_masks, "name the masks"),
    NoUse(
        ("sampling.apart",),
        lambda case: "with devices: 1, which is one process" if case.config.processes == 1 else "",
        "raise devices",
    ),
    *(_strength(change, keys) for change, keys in STRENGTHS.items()),
    NoUse(("augmentation.cut_size",), _without_cuts, "set augmentation.cut_blur or cut_noise"),
    NoUse(("rule.tolerance", "rule.divergence"), _reference, "leave rule.reference_stopping out"),
    NoUse(("choose_threshold",), _in_vain, "leave threshold out"),
    NoUse(("threshold_box",), _not_chosen, "let petaseg train choose the threshold"),
    NoUse(
        ("cluster.prices", "cluster.interface", "cluster.ports"),
        lambda case: "by a training",
        "keep what you need for runs",
    ),
    NoUse(
        ("cluster.driver.gpu_resource",),
        _on_no_gpu,
        "set device: cuda",
    ),
    *cluster_use.ROWS,
)
"""Keys -> what makes them useless; the first row that says why is the one that is told."""


def unused_keys(config: TrainConfig, cluster: str | None = None) -> list[Unused]:
    """What the user has set in vain, for the commands that name it.

    cluster: the cluster on which the training is a job, if there is one. Raises ``ConfigError`` for keys that
    contradict others.
    """
    case = TrainingCase(config, cluster)
    found = unused(config, case, ROWS)
    refuse(found)
    return found
