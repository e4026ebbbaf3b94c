"""What is computed again after a change: every key of a run file and every part of an input, in one table.

``tests/runs/test_changes.py`` makes each change and compares the fingerprints of all stages with this table; the table
in docs/running.md is printed from it: `python -m pipeline.runs.changes docs/running.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.cluster import DriverProcess, Worker
from pipeline.config.kubernetes import KubernetesTable, WorkerPodOptions
from pipeline.config.reference import keys_of
from pipeline.config.run_file import RunConfig
from pipeline.config.slurm import SlurmJob
from pipeline.errors import ConfigError
from pipeline.runs.branches import BRANCHES
from pipeline.runs.chain import STAGES, with_readers

BEGIN = "<!-- printed by `python -m pipeline.runs.changes docs/running.md`: change pipeline/runs/changes.py instead -->"
END = "<!-- end of what is printed -->"


@dataclass(frozen=True)
class Effect:
    """Stages that are computed again together."""

    words: str
    stages: tuple[str, ...]


SAME = "write_supervoxels"
"""The stage that reads the table of the segments, of which it takes a column that only the fragments decide."""
NOTHING = Effect("nothing", ())
SCORES = Effect("the scores", with_readers("evaluate_segmentation"))
LABELS = Effect("the cut of the merge tree and the labels", with_readers("cut_merge_tree", without=SAME))
TREE = Effect("the merge tree and the labels", with_readers("agglomerate", without=SAME))
GRAPH = Effect("the region graph, the merge tree and the labels", with_readers("build_region_graph", without=SAME))
SUPERVOXELS = Effect("supervoxels and what follows", with_readers("extract_supervoxels"))
OBJECTS = Effect("which basins are one object, and the result", with_readers("unite_basins"))
BASINS = Effect("basins and what follows", with_readers("extract_basins"))
PASSES = Effect("which basins touch, and what follows", with_readers("build_basin_graph"))
FILTERED = Effect("the filtered head and what follows", with_readers("filter_head"))
TAKEN = Effect("the result and what follows", with_readers("take_labels"))
CLASSES = Effect("the class map and what follows", with_readers("write_classes", without="extract_meshes"))
OF_RESULT = ("evaluate_segmentation", "downsample_result", "measure", "count_inside")
"""Stages that read every kind of result."""
KIND = Effect(
    "the result of the other kind, from the same predictions",
    tuple(name for first in (*OF_RESULT, "extract_skeletons") for name in with_readers(first)),
)
LEVELS = Effect(
    "the levels, and the meshes that are made of them",
    (*(kind.name for kind in BRANCHES["downsample"].stages), *with_readers("downsample_result")),
)
MESHES = Effect("the meshes", with_readers("extract_meshes"))
SKELETONS = Effect("the skeletons", with_readers("extract_skeletons"))
ORGANELLES = Effect("the table of organelles", with_readers("count_inside"))
HEADS = Effect("everything but the levels of the image", with_readers("predict_heads"))
EVERYTHING = Effect("everything", tuple(kind.name for kind in STAGES))
EFFECTS = (
    EVERYTHING,
    HEADS,
    SUPERVOXELS,
    GRAPH,
    TREE,
    LABELS,
    FILTERED,
    BASINS,
    PASSES,
    OBJECTS,
    CLASSES,
    TAKEN,
    KIND,
    SCORES,
    LEVELS,
    MESHES,
    SKELETONS,
    ORGANELLES,
    NOTHING,
)

RUNS = {
    "": "",
    "image": "with an image",
    "affinities": "with given affinities",
    "membranes": "with given membranes",
    "heads": "with several given heads",
    "section": "with supervoxels by section",
    "mask": "with kind mask",
    "objects": "with kind objects",
    "classes": "with kind classes",
    "labels": "with given labels",
    "flips": "with test-time augmentation",
    "upright": "without test-time augmentation",
    "cpu": "on a CPU",
    "gpu": "on a GPU",
    "mean": "with linkage mean",
    "quantile": "with linkage quantile",
    "evidence": "with borders by evidence",
}
"""Runs in which a change has an effect of its own -> what the page says of them; "" stands for any run."""


@dataclass(frozen=True)
class Change:
    """A change and its effect."""

    what: str
    """A key of the run file, a field of the model's card, or a part of an input in words."""
    effect: Effect
    run: str = ""
    """A key of ``RUNS``."""


def _changes(effect: Effect, *what: str, run: str = "") -> tuple[Change, ...]:
    return tuple(Change(each, effect, run) for each in what)


INFERENCE = tuple(key for key in keys_of() if key.startswith("inference."))
KEYS = (
    *_changes(EVERYTHING, "input.start", "input.stop", "chunk_shape", "storage_chunk_shape"),
    *_changes(EVERYTHING, "input.image", run="image"),
    *_changes(HEADS, "inference.model", "inference.precision", run="image"),
    *_changes(HEADS, "inference.augmentation", "inference.compile", run="image"),
    *_changes(HEADS, "inference.augmentation_rule", run="flips"),
    *_changes(HEADS, "inference.patch_shape", "inference.overlap", "inference.heads", run="image"),
    *_changes(HEADS, "inference.device", "inference.batch_size", run="gpu"),
    *_changes(HEADS, "inference.threads", run="cpu"),
    *_changes(SUPERVOXELS, "input.mask", "supervoxels.mode", "supervoxels.threshold"),
    *_changes(SUPERVOXELS, "supervoxels.max_distance_nm", "supervoxels.filter_width", "supervoxels.borders"),
    *_changes(SUPERVOXELS, "supervoxels.border_level", run="evidence"),
    *_changes(SUPERVOXELS, "input.affinities", "input.affinity_offsets", run="affinities"),
    *_changes(SUPERVOXELS, "input.membranes", run="membranes"),
    *_changes(SUPERVOXELS, "input.heads", "supervoxels.source", run="heads"),
    *_changes(HEADS, "supervoxels.source", run="image"),
    *_changes(GRAPH, "agglomeration.linkage"),
    *_changes(GRAPH, "agglomeration.across_sections", run="section"),
    *_changes(GRAPH, "agglomeration.far_offsets", run="affinities"),
    *_changes(HEADS, "agglomeration.far_offsets", run="image"),
    *_changes(TREE, "agglomeration.stop_score"),
    *_changes(TREE, "agglomeration.quantile", run="quantile"),
    *_changes(LABELS, "segmentation.threshold", "segmentation.min_size", "segmentation.min_size_threshold"),
    *_changes(OBJECTS, "segmentation.threshold", "segmentation.min_size", "segmentation.seed_threshold", run="objects"),
    *_changes(OBJECTS, "segmentation.min_seed_size", "segmentation.seedless", run="objects"),
    *_changes(BASINS, "segmentation.head", "segmentation.lowest_threshold", run="objects"),
    *_changes(BASINS, "segmentation.within", "segmentation.seeds_within", run="objects"),
    *_changes(PASSES, "segmentation.connectivity", run="objects"),
    *_changes(FILTERED, "segmentation.median", run="mask"),
    *_changes(TAKEN, "input.labels", "input.mask", run="labels"),
    *_changes(CLASSES, "segmentation.head", "input.mask", run="classes"),
    *_changes(KIND, "segmentation.kind", run="mask"),
    *_changes(SCORES, "evaluation.labels", "evaluation.skeletons", "evaluation.start", "evaluation.stop"),
    *_changes(LEVELS, "downsample.levels"),
    *_changes(MESHES, "meshes.smallest_voxels"),
    *_changes(SKELETONS, "skeletons.smallest_voxels", "skeletons.scale", "skeletons.const_nm", "skeletons.voxel_nm"),
    *_changes(ORGANELLES, "organelles.volumes"),
    *_changes(NOTHING, "run_directory", "downsample.volumes"),
    *_changes(NOTHING, "input.affinity_offsets", "inference.any_resolution", run="image"),
    *_changes(NOTHING, "inference.gpu", "inference.batch_size", run="cpu"),
    *_changes(NOTHING, "inference.gpu", "inference.threads", run="gpu"),
    *_changes(NOTHING, "agglomeration.quantile", run="mean"),
    *_changes(NOTHING, "inference.augmentation_rule", run="upright"),
    *_changes(NOTHING, "input.affinity_offsets", run="membranes"),
    *_changes(NOTHING, *INFERENCE, run="affinities"),
    *_changes(NOTHING, "execution.executor", "execution.workers", "execution.threads_per_worker"),
    *_changes(NOTHING, "execution.scheduler", "execution.max_in_flight", "execution.attempts"),
    *_changes(NOTHING, "execution.backoff_seconds", "execution.lease_seconds", "execution.timeout_seconds"),
    *_changes(NOTHING, "execution.metrics", "execution.dashboard"),
    *_changes(NOTHING, "cluster.kind", "cluster.interface", "cluster.ports", "cluster.namespace"),
    *_changes(NOTHING, "cluster.image", "cluster.claim", "cluster.secrets", "cluster.image_pull_secret"),
    *_changes(NOTHING, *(f"cluster.kubernetes.{key}" for key in KubernetesTable.model_fields)),
    *_changes(NOTHING, *(f"cluster.driver.{key}" for key in DriverProcess.model_fields)),
    *_changes(NOTHING, *(f"cluster.driver.{key}" for key in WorkerPodOptions.model_fields)),
    *(
        Change(f"cluster.{table}.{key}", NOTHING)
        for table in ("workers", "inference_workers")
        for key in (*Worker.model_fields, *WorkerPodOptions.model_fields)
    ),
    *(
        Change(f"{table}.{key}", NOTHING)
        for table in ("cluster", "cluster.driver", "cluster.workers", "cluster.inference_workers")
        for key in SlurmJob.model_fields
    ),
    *_changes(NOTHING, *(f"cluster.prices.{key}" for key in ("cpu_hour", "gpu_hour", "currency"))),
)
"""The effect of every key of a run file."""

CARD = (
    *_changes(HEADS, "architecture", "arguments", "sha256", "patch_shape", "overlap", run="image"),
    *_changes(HEADS, "normalisation", "offsets", "activation", run="image"),
    *_changes(LABELS, "threshold", run="image"),
    *_changes(NOTHING, "name", "weights", "other_channels", "resolution_nm", run="image"),
    *_changes(NOTHING, "training_data", "scores", "licence", run="image"),
)
"""The effect of every field of the model's card, where the run file leaves its own key out."""

PARTS = (
    *_changes(EVERYTHING, "voxels of the image", "voxel size of the image", "offset of the image", run="image"),
    *_changes(EVERYTHING, "extent of the image", run="image"),
    *_changes(SUPERVOXELS, "voxels of the mask"),
    *_changes(SUPERVOXELS, "voxels of the affinities", "type of the affinities", run="affinities"),
    *_changes(SUPERVOXELS, "voxel size of the affinities", "offset of the affinities", run="affinities"),
    *_changes(SCORES, "true labels", "true skeletons"),
    *_changes(ORGANELLES, "voxels of organelles"),
    *_changes(NOTHING, "place of an input", "storage chunks of an input", "format of an input"),
    *_changes(NOTHING, "version of torch", run="image"),
)
"""The effect of every part of an input, beside the places that the run file names."""


def table() -> str:
    """The Markdown table: a line for each effect."""
    lines = [f"| {'<br>'.join(_groups(effect))} | {_consequence(effect)} |" for effect in EFFECTS]
    return "\n".join(["| you change | computed again |", "|---|---|", *lines])


def rewrite(page: Path) -> None:
    """Print the table into a page, between ``BEGIN`` and ``END``; ``ConfigError`` if they are not there."""
    page.write_text(with_table(page.read_text()))


def with_table(text: str) -> str:
    """A page with the present table between ``BEGIN`` and ``END``."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"the page has no place for the table; it must hold these two lines:\n{BEGIN}\n{END}")
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


def _groups(effect: Effect) -> Iterator[str]:
    """The changes of one effect: keys by the runs that they are about, then fields of the card, then parts."""
    for run, words in RUNS.items():
        keys = [change.what for change in KEYS if (change.effect, change.run) == (effect, run)]
        if keys:
            yield (f"{words}: " if words else "") + _code(_with_whole_tables(keys))
    if fields := [change.what for change in CARD if change.effect == effect]:
        yield f"in the model's card: {_code(fields)}"
    if parts := [change.what for change in PARTS if change.effect == effect]:
        yield ", ".join(parts)


def _code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _with_whole_tables(keys: Sequence[str]) -> list[str]:
    """The same keys; those of a table of which none is missing become one: ``execution.*``."""
    whole = [name for name in RunConfig.model_fields if _is_whole(name, keys)]
    rest = [key for key in keys if key.partition(".")[0] not in whole]
    return [*rest, *(f"{name}.*" for name in whole)]


def _is_whole(name: str, keys: Sequence[str]) -> bool:
    members = {key for key in keys_of() if key.startswith(f"{name}.")}
    return bool(members) and members <= set(keys)


def _consequence(effect: Effect) -> str:
    if effect in (EVERYTHING, HEADS, KIND, NOTHING):
        return effect.words
    return f"{effect.words}: {_code([kind.name for kind in STAGES if kind.name in effect.stages])}"


if __name__ == "__main__":
    rewrite(Path(sys.argv[1]))
