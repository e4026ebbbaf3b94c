"""``run.yaml`` as frozen, strict models: all values are checked here, so that later code need not check them again.

Values that are wrong by themselves are refused here (unknown keys, wrong types, impossible shapes). Values that can
only be checked with an open volume or a model (a missing volume, an unaligned region, weights that do not fit) are
refused by ``pipeline.runs.run.Run``, also before anything is computed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.base import (
    STORAGE_CHUNK,
    Address,
    Amount,
    Cores,
    Count,
    CountOrZero,
    DataPath,
    HeadValue,
    Line,
    ModelName,
    Processes,
    Shape,
    Share,
    Table,
    Voxel,
)
from pipeline.config.branches import Downsample, Measures, Meshes, Organelles, Skeletons
from pipeline.config.cluster import ClusterTable
from pipeline.config.registered import KeyOf
from pipeline.formats import RUN_FILE, FileFormat
from pipeline.geometry import Vec, product

DEFAULT_THRESHOLD = 0.5
"""Where the merge tree is cut if neither ``segmentation.threshold`` nor the model's card says it."""


SOURCES = ("image", "affinities", "membranes", "heads", "labels")
"""The keys of ``input`` with which a run can begin."""


class Input(Table):
    """The data to segment: an image, or heads (affinities, membranes) that another program has predicted, or labels."""

    image: DataPath | None = None
    """Volume of the raw image (uint8): a path or URL; relative paths count from the run file's folder."""
    affinities: DataPath | None = None
    """Volume of affinities (uint8, channels z, y, x first), from any program; then no network is run."""
    affinity_offsets: tuple[Voxel, ...] = (Vec(-1, 0, 0), Vec(0, -1, 0), Vec(0, 0, -1))
    """Channel k of input.affinities at voxel v is the affinity between v and v + affinity_offsets[k]; nearest first."""
    membranes: DataPath | None = None
    """Volume of membranes (uint8, or 0 to 1; 255 or 1 is sure), from any program; then no network is run."""
    heads: dict[str, DataPath] = Field(default_factory=dict)
    """Volumes of several heads by name, such as {membranes: m.zarr}, from any program; then no network is run."""
    labels: DataPath | None = None
    """Volume of finished labels (integers, 0 = none), from any program; they are the result (segmentation.kind:
    labels), and get levels, meshes, tables and scores. input.image beside it is shown, and no network is run."""
    mask: DataPath | None = None
    """Volume that is 0 outside the tissue; those voxels get label 0. It covers the image, also at a coarser mip."""
    start: Voxel | None = None
    """First voxel (z, y, x) of the region of interest; the whole dataset if left out."""
    stop: Voxel | None = None
    """One past the last voxel (z, y, x) of the region of interest."""

    @model_validator(mode="after")
    def _one_source(self) -> Input:
        given = [name for name in SOURCES if getattr(self, name)]
        if len(given) != 1 and given != ["image", "labels"]:
            raise ValueError(
                f"input has {', '.join(given) or 'no volume'}; give exactly one of input.image (runs the network), "
                "input.affinities, input.membranes or input.heads (which skip it), and input.labels (finished labels, "
                "which input.image may accompany)"
            )
        return self

    @property
    def runs_network(self) -> bool:
        """True if a network predicts heads of the image."""
        return self.image is not None and self.labels is None

    @property
    def source(self) -> str:
        """The volume with which the run begins."""
        return self.labels or self.image or next(iter(self.given.values()))

    @property
    def given(self) -> dict[str, str]:
        """The volumes of heads by name; none with an image."""
        named = {"affinities": self.affinities, "membranes": self.membranes}
        return {**{name: url for name, url in named.items() if url is not None}, **self.heads}

    @model_validator(mode="after")
    def _nearest_neighbours(self) -> Input:
        if sorted(map(abs, self.affinity_offsets[:3])) != [(0, 0, 1), (0, 1, 0), (1, 0, 0)]:
            raise ValueError(
                f"input.affinity_offsets is {[list(o) for o in self.affinity_offsets]}; it must name the nearest "
                "neighbour along each axis once, like [[-1, 0, 0], [0, -1, 0], [0, 0, -1]], before all others"
            )
        return self


class Inference(Table):
    """How the network is run; a change of any key computes its heads again, since it may change their last bit."""

    model: ModelName = "fib25"
    """Name of a bundled model (`petaseg models` lists them), or the path of a model card (card.yaml)."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Patches per forward pass on a GPU; the last batch is padded. A CPU runs patch by patch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device on which the network runs; auto takes a GPU if there is one."""
    gpu: Line | None = None
    """Name of the workers' GPU, as `nvidia-smi -L` prints it: needed if the driver's machine has none."""
    precision: Literal["auto", "float32", "bfloat16", "fastest"] = "auto"
    """Arithmetic of the convolutions; auto is bfloat16 on a GPU and float32 on a CPU; fastest is measured when the run
    begins, and recorded for all of it."""
    threads: Cores = 1
    """CPU threads of one forward pass; a change computes affinities again, since kernels split their sums by it."""
    augmentation: Literal["none", "flips", "flips+transpose", "flips+permutations"] = "none"
    """Test-time augmentation: average over 8 flipped, 16 also transposed (y, x), or 48 also permuted copies."""
    augmentation_rule: Literal["mean", "min", "mean+extremes"] = "mean"
    """min: the copy that sees a border decides: the least affinity and foreground, the largest membrane and contour;
    mean+extremes: the least and the largest value of the copies are stored beside the mean, as volumes of their own."""
    compile: bool = False
    """Compile the network (torch.compile): a slower start, and faster patches on some machines."""
    patch_shape: Shape | None = None
    """Patch (z, y, x); the model card's if left out."""
    overlap: Voxel | None = None
    """Voxels that neighbouring patches share (z, y, x); the model card's if left out."""
    heads: tuple[Line, ...] | None = None
    """Heads of the model that are stored, each as a volume of its name; default: those that the segmentation needs."""
    any_resolution: bool = False
    """Run a model on voxels of another size than those it was trained on."""


class Supervoxels(Table):
    """How affinities become supervoxels: steepest ascent on the distance to the nearest membrane."""

    source: Literal["auto", "affinities", "membranes"] = "auto"
    """The head of which neurons are made; auto takes affinities if there are any, else membranes."""
    mode: Literal["auto", "volume", "section"] = "auto"
    """section works in each section by itself; auto does so if voxels are at least three times as deep as wide."""
    threshold: Share | None = None
    """A voxel is inside a cell if the mean of its nearest affinities is at least this; default by mode."""
    max_distance_nm: Count | None = None
    """Distances to the membrane are capped here; default by mode."""
    filter_width: Count | None = None
    """Odd width in voxels of the box filter that smooths the distances; default by mode."""
    borders: Literal["distance", "evidence"] = "distance"
    """What places borders: the distance to what is inside, or evidence: they lie where the affinities are least."""
    border_level: Share = 0.8
    """With borders: evidence, it decides where the mean of a voxel's nearest affinities is below this."""


class Condition(Table):
    """A condition on a head: its value is above a level, below one, or between two."""

    above: HeadValue | None = None
    """The value is larger than this."""
    below: HeadValue | None = None
    """The value is smaller than this."""

    @model_validator(mode="after")
    def _says_something(self) -> Condition:
        if self.above is None and self.below is None:
            raise ValueError("the condition says nothing: give above, below or both, for example {below: 0.2}")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError(f"no value is above {self.above} and below {self.below}: above must be the smaller one")
        return self


class Agglomeration(Table):
    """How supervoxels are merged: hierarchical agglomeration with a stored merge tree."""

    linkage: Literal["mean", "quantile"] = "mean"
    """Score of two touching regions: mean, or a quantile, of the affinities on their contact."""
    quantile: Share = 0.5
    """Which quantile, with linkage: quantile."""
    far_offsets: tuple[Voxel, ...] = ()
    """Affinities of distant voxels that count as well, such as [[-9, 0, 0]]: of those that are predicted or given."""
    across_sections: bool = True
    """Whether regions of different sections can be one neuron; false needs supervoxels by section."""
    stop_score: Share = 0.05
    """The tree is built down to this score; any threshold above it can be applied later, without the network."""

    @model_validator(mode="after")
    def _far_along_one_axis(self) -> Agglomeration:
        odd = [list(each) for each in self.far_offsets if sum(map(bool, each)) != 1 or min(each) > -2]
        if odd or len(set(self.far_offsets)) < len(self.far_offsets):
            raise ValueError(
                f"agglomeration.far_offsets is {[list(each) for each in self.far_offsets]}; each must lead back by two "
                "voxels or more along one axis, once, like [[-9, 0, 0], [0, -9, 0]]: leave out others"
            )
        if not self.across_sections and any(each.z for each in self.far_offsets):
            raise ValueError(
                "agglomeration.across_sections is false, and far_offsets lead to other sections: leave out "
                "those along z"
            )
        return self


class Segmentation(Table):
    """What becomes of the predictions: neurons, a mask, objects or classes; changing it recomputes no prediction."""

    kind: Literal["neurons", "mask", "objects", "classes", "labels"] = "neurons"
    """neurons: agglomerated supervoxels; mask: where one head is high; objects: its pieces, or a seeded watershed;
    classes: the most probable class of each voxel, as one volume; labels: those of input.labels, as they are."""
    threshold: HeadValue | None = None
    """Neurons: regions that score at least this are one. Else: voxels above it. Default: the model card's, or 0.5."""
    min_size: CountOrZero = 0
    """Neurons: pieces of fewer voxels are merged by their next merge, if its score is at least min_size_threshold.
    Else: smaller pieces or objects are left out."""
    min_size_threshold: Share | None = None
    """Neurons: lowest score at which pieces below min_size are merged; default: agglomeration.stop_score."""
    head: Line | None = None
    """Mask and objects: the head that is thresholded and flooded; default: foreground, or the only one. Classes: the
    head of class probabilities; default: classes, or the only one."""
    lowest_threshold: HeadValue | None = None
    """Mask and objects: thresholds down to this can be applied later from stored tables; default: 0.1, for signed
    distances 0."""
    connectivity: Literal[6, 26] | None = None
    """Mask and objects: pieces, objects and seeds go on across faces (6), or across edges and corners too (26);
    default: 6."""
    median: Shape | None = None
    """Mask: odd widths (z, y, x) of the box in which the head's median is taken first."""
    within: dict[Line, Condition] = Field(default_factory=dict)
    """Objects: conditions on other heads that every voxel of an object fulfils, by head."""
    seed_threshold: HeadValue | None = None
    """Objects: seeds are where the head is above this, and seeds_within holds; without either, objects are pieces."""
    seeds_within: dict[Line, Condition] = Field(default_factory=dict)
    """Objects: conditions on other heads that every voxel of a seed fulfils, by head: {contours: {below: 0.2}}."""
    min_seed_size: CountOrZero | None = None
    """Objects: smaller seeds are none; default: 0, so that every seed counts."""
    seedless: Literal["drop", "keep"] | None = None
    """Objects: what becomes of pieces of the mask that hold no seed; default: drop."""

    @model_validator(mode="after")
    def _keys_of_kind(self) -> Segmentation:
        for key in sorted(self.model_fields_set - {"kind"}):
            if self.kind not in KINDS_OF[key] and not self._is_default(key):
                raise ValueError(
                    f"segmentation.{key} is for kind: {' or '.join(KINDS_OF[key])}, and segmentation.kind is "
                    f"{self.kind}: remove the key, or choose the kind that uses it{OF_ONE_CLASS.get(self.kind, '')}"
                )
        return self

    def _is_default(self, key: str) -> bool:
        """True if the table would mean the same without this key."""
        default = type(self).model_fields[key].get_default(call_default_factory=True)  # type: ignore[call-arg]
        return bool(getattr(self, key) == default)

    @property
    def has_basins(self) -> bool:
        """True if the result is made of the basins of one head."""
        return self.kind in ("mask", "objects")

    @model_validator(mode="after")
    def _seeds_for_rules_of_seeds(self) -> Segmentation:
        if self.seed_threshold is not None or self.seeds_within:
            return self
        for key in ("min_seed_size", "seedless"):
            if getattr(self, key) is not None:
                raise ValueError(
                    f"segmentation.{key} is {getattr(self, key)}, and there are no seeds, so objects are pieces: set "
                    "seed_threshold or seeds_within, or leave it out"
                )
        return self

    @model_validator(mode="after")
    def _levels_in_order(self) -> Segmentation:
        if self.kind == "neurons":
            _refuse_negative(self.threshold)
        else:
            check_levels(self.lowest_threshold, self.threshold, self.seed_threshold)
        if self.median is not None and any(width % 2 == 0 for width in self.median):
            raise ValueError(
                f"segmentation.median is {list(self.median)}; every width must be odd, so that the box has a middle: "
                f"{[width + 1 - width % 2 for width in self.median]}"
            )
        return self


KINDS_OF: dict[str, tuple[str, ...]] = {
    "threshold": ("neurons", "mask", "objects"),
    "min_size": ("neurons", "mask", "objects"),
    "min_size_threshold": ("neurons",),
    "head": ("mask", "objects", "classes"),
    "lowest_threshold": ("mask", "objects"),
    "connectivity": ("mask", "objects"),
    "median": ("mask",),
    "within": ("objects",),
    "seed_threshold": ("objects",),
    "seeds_within": ("objects",),
    "min_seed_size": ("objects",),
    "seedless": ("objects",),
}
"""The kinds that use each key of the table ``segmentation``, but ``kind`` itself."""
OF_ONE_CLASS = {
    "classes": " (a class map has no threshold, and nothing to relabel; kind: objects with head: classes:2:argmax "
    "makes objects of class 2 alone)",
    "labels": " (labels are taken as they are)",
}
"""Kind -> what a message about a key of other kinds adds."""


def _refuse_negative(threshold: float | None) -> None:
    if threshold is not None and threshold < 0:
        raise ValueError(f"segmentation.threshold is {threshold}; scores of neurons are from 0 to 1: choose one there")


def check_levels(lowest: float | None, threshold: float | None, seed: float | None) -> None:
    """Raise ``ValueError`` unless lowest <= threshold <= seed, as far as they are given."""
    named = {"lowest_threshold": lowest, "threshold": threshold, "seed_threshold": seed}
    given = [(name, value) for name, value in named.items() if value is not None]
    for (name, low), (other, high) in pairwise(given):
        if low > high:
            raise ValueError(
                f"segmentation.{name} is {low} and segmentation.{other} {high}; lowest_threshold, threshold and "
                "seed_threshold must rise, or be equal: correct one of them"
            )


class Evaluation(Table):
    """Scores against ground truth; leave out if there is none."""

    labels: DataPath | None = None
    """Volume of true labels, of all or a part of the image; 0, -1 to -3 and the largest uint64 are not scored."""
    skeletons: DataPath | None = None
    """Skeletons (npz: nodes_nm (n, 3) z y x, edges (m, 2), skeleton (n,)) for the expected run length."""
    start: Voxel | None = None
    """First voxel of the part that is scored; the region of interest if left out."""
    stop: Voxel | None = None
    """One past the last voxel of the part that is scored."""


class Execution(Table):
    """The executor of chunks; no key of this table changes a byte of the result."""

    executor: Annotated[str, KeyOf("pipeline.execution:EXECUTORS")] = "threads"
    """serial: a plain loop; threads: threads of one process, for parallel I/O; dask: worker processes or a cluster."""
    workers: Processes = 2
    """Worker processes (dask) or threads (threads)."""
    threads_per_worker: Cores = 1
    """Chunks that one dask worker processes in parallel."""
    scheduler: Line | None = None
    """Address of an existing Dask scheduler, for example tcp://host:8786; a local cluster if left out."""
    max_in_flight: Count | None = None
    """Chunks submitted at a time; by default two for each worker thread."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """A chunk that failed this often is set aside, and the others are completed."""
    backoff_seconds: Amount = 1.0
    """Pause before a retry; doubles each time."""
    lease_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    """A driver that has not renewed its lease for this time counts as dead, and another may take over its run."""
    timeout_seconds: Annotated[float, Field(ge=0.1, le=1e7)] | None = None
    """A chunk that takes longer has failed and its worker is restarted (dask only); no limit if left out."""
    metrics: Address | None = None
    """Address at which the driver serves Prometheus metrics, like 127.0.0.1:9095; no metrics if left out."""
    dashboard: Address | None = None
    """Address of Dask's dashboard, like 127.0.0.1:8787; no dashboard if left out. An existing scheduler has its own."""


class RunConfig(Table):
    """One run: from an image (or affinities) to neurons."""

    file_format: ClassVar[FileFormat | None] = RUN_FILE

    run_directory: DataPath
    """Folder or URL to which the run writes all of its files."""
    input: Input
    chunk_shape: Shape = Vec(128, 128, 128)
    """Voxels (z, y, x) of one unit of work: a multiple of the storage chunk. The result does not depend on it."""
    storage_chunk_shape: Shape = STORAGE_CHUNK
    """Voxels (z, y, x) of one stored object of the output volumes."""
    inference: Inference = Inference()
    supervoxels: Supervoxels = Supervoxels()
    agglomeration: Agglomeration = Agglomeration()
    segmentation: Segmentation = Segmentation()
    evaluation: Evaluation = Evaluation()
    downsample: Downsample | None = None
    """Coarser levels of the volumes of a run, for viewers; none if left out."""
    meshes: Meshes | None = None
    """Meshes of neurons or objects, for viewers; none if left out."""
    skeletons: Skeletons | None = None
    """Middle lines of neurons or objects with their radii; none if left out."""
    measures: Measures | None = None
    """Voxels, places, surfaces and contacts of the objects in the result, as tables; none if this table is left out."""
    organelles: Organelles | None = None
    """Which objects of other volumes lie in which neuron, as a table; none if this table is left out."""
    execution: Execution = Execution()
    cluster: ClusterTable = ClusterTable()

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        _check_alignment(self.chunk_shape, self.storage_chunk_shape)
        _check_reach(self.chunk_shape, self.agglomeration.far_offsets)
        cut = self.segmentation
        _check_labels(self)
        if cut.kind == "classes":
            _refuse_shapes_of_classes(self)
        if cut.kind != "neurons":
            return self
        check_thresholds(cut.threshold, cut.min_size_threshold, self.agglomeration.stop_score)
        return self


def _check_labels(run: RunConfig) -> None:
    """``ValueError`` unless a run that begins with labels says so, and no other does."""
    kind, labels = run.segmentation.kind, run.input.labels
    if labels is not None and kind != "labels":
        raise ValueError(
            f"input.labels is {labels}, and segmentation.kind is {kind}, which is made of predictions: set "
            "segmentation.kind to labels"
        )
    if labels is None and kind == "labels":
        raise ValueError(
            "segmentation.kind is labels, and there are none: name them in input.labels, or choose another kind"
        )


NOT_OF_CLASSES = ("meshes", "skeletons")
"""Tables that are about single objects; a class is spread over the whole volume, and would fit into no memory."""


def _refuse_shapes_of_classes(run: RunConfig) -> None:
    """``ValueError`` for what a class map cannot have."""
    for name in NOT_OF_CLASSES:
        if getattr(run, name) is not None:
            raise ValueError(
                f"{name} is given, and segmentation.kind is classes: {name} are made of single objects, and a class is "
                f"spread over the whole volume; leave {name} out, or make objects of one class (segmentation: {{kind: "
                "objects, head: classes:1:argmax}) in another run directory"
            )
    if run.evaluation.skeletons is not None:
        raise ValueError(
            f"evaluation.skeletons is {run.evaluation.skeletons}, and segmentation.kind is classes: skeletons are "
            "followed through ids of neurons, which a class map has not; leave them out, and give evaluation.labels"
        )


def _check_reach(chunk: Shape, far_offsets: tuple[Voxel, ...]) -> None:
    too_far = [list(each) for each in far_offsets if not abs(each).at_most(chunk)]
    if too_far:
        raise ValueError(
            f"chunk_shape is {list(chunk)}, and agglomeration.far_offsets reach further, by {too_far}: a chunk sees "
            "its neighbours' fragments only; take larger chunks, or leave these offsets out"
        )


LARGEST_OBJECT = 2**31
"""Voxels of the largest stored object that codecs and buckets can hold."""


def _check_alignment(chunk: Shape, storage: Shape) -> None:
    if product(storage) > LARGEST_OBJECT:
        raise ValueError(
            f"storage_chunk_shape is {list(storage)}; one stored object holds at most {LARGEST_OBJECT:,} voxels: "
            "[64, 64, 64] is usual"
        )
    if not any(chunk % storage):
        return
    nearest = [max(1, round(c / s)) * s for c, s in zip(chunk, storage, strict=True)]
    raise ValueError(
        f"chunk_shape is {list(chunk)}; it must be a multiple of storage_chunk_shape {list(storage)}, so that no two "
        f"chunks write one stored object; the nearest is {nearest}"
    )


def check_thresholds(threshold: float | None, lowest: float | None, stop_score: float) -> None:
    """Raise ``ValueError`` unless stop_score <= lowest <= threshold, as far as they are given.

    threshold, lowest: ``segmentation.threshold`` and ``segmentation.min_size_threshold``.
    """
    for name, value in (("threshold", threshold), ("min_size_threshold", lowest)):
        if value is not None and value < stop_score:
            raise ValueError(
                f"segmentation.{name} is {value}; the merge tree ends at agglomeration.stop_score {stop_score}: raise "
                "the threshold, or lower stop_score (which builds the tree again)"
            )
    if lowest is not None and threshold is not None and lowest > threshold:
        raise ValueError(
            f"segmentation.min_size_threshold is {lowest}; small pieces follow merges below "
            f"segmentation.threshold {threshold}: choose a smaller value"
        )
