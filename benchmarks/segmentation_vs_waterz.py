"""Affinities to segments: petaseg's kernels against waterz, in speed and in quality, on real tissue.

    python benchmarks/segmentation_vs_waterz.py [--affinities RUN/affinities.zarr] [--quick] [--rounds 5]

1. From affinities: supervoxels, region graph, merge tree and one segmentation, against ``waterz.agglomerate`` with its
   own fragments. At least 3 times as fast.
2. From the same supervoxels: region graph, merge tree and one segmentation, against ``waterz.agglomerate`` with
   ``fragments=``. No slower. The same with the median of the affinities on a contact, for information.
3. Both swept over thresholds and scored on the part (z >= 185) of which the network that made the affinities saw
   nothing. Lower total VOI and lower adapted Rand error, each side at its own best threshold for that score.
   ``--affinities`` takes those of a run of any network that did not see this part either.

waterz takes its default scoring function (one minus the mean affinity), its default affinity thresholds and its exact
queue. Each side yields its list of merges down to a mean affinity of 0.1 and the segmentation there. Both run on one
thread of this process, in turns; what counts is the processor time of the best round, so that other programs on the
machine matter little. Input as each side likes it (uint8, float32) is made before; numba has compiled, waterz comes
compiled. Exit status 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import waterz

from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.scores import score
from pipeline.evaluation.sweep import SweepPoint, sweep
from pipeline.geometry import BoundingBox
from pipeline.segmentation.agglomeration import Linkage, agglomerate_node
from pipeline.segmentation.merge_tree import CutRules, canonical, cut_global
from pipeline.segmentation.region_graph import RegionGraph, build_region_graph
from pipeline.segmentation.remap import apply_remap
from pipeline.segmentation.supervoxels import default_rules, extract_supervoxels
from pipeline.volumes import open_volume

ROOT = Path(__file__).resolve().parents[1]
RESOLUTION_NM = (8, 8, 8)
SCORED_FROM_Z = 185
STOP_SCORE = 0.1
THRESHOLDS = np.arange(0.1, 0.96, 0.025)
SEGMENTATION_LIMIT = 3.0
AGGLOMERATION_LIMIT = 1.0
NO_JOINS = np.empty((0, 2), np.int64)
MEAN = "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>"
MEDIAN = "OneMinus<HistogramQuantileAffinity<RegionGraphType, 50, ScoreValue, 256, false>>"


@dataclass(frozen=True)
class Tissue:
    """Affinities, and truth where they are scored."""

    affinities: np.ndarray
    """uint8 (3, z, y, x)"""
    as_float: np.ndarray
    """float32 (3, z, y, x), 0..1"""
    truth: np.ndarray
    """uint32: the last planes"""

    @property
    def box(self) -> BoundingBox:
        """Of all affinities."""
        return BoundingBox.from_shape(self.affinities.shape[1:])  # type: ignore[arg-type]

    def table(self, segments: np.ndarray) -> Contingency:
        """Truth against the segments on the planes that are scored."""
        return Contingency.from_labels(self.truth, segments[-len(self.truth) :])


def main() -> int:
    """Run the three comparisons; print their figures and what each claim is worth."""
    arguments = parse()
    tissue = load(arguments.data, arguments.affinities, 125 if arguments.quick else None)
    fragments, graph = warm_up(tissue)
    print(f"affinities {tissue.affinities.shape}, {len(graph.regions)} supervoxels, {len(graph.edges)} contacts")
    claims = [
        compare_segmentation(tissue, arguments.rounds),
        compare_agglomeration(tissue, fragments, Linkage("mean", 0.5), MEAN, arguments.rounds),
        *compare_quality(tissue, fragments, graph),
    ]
    compare_agglomeration(tissue, fragments, Linkage("quantile", 0.5), MEDIAN, arguments.rounds)
    return int(not all(claims))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = os.environ.get("PETASEG_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=folder, help="holds fib25_train2.h5 and its affinities")
    parser.add_argument("--affinities", help="a volume of the same box; those of --data if left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="an eighth of the volume")
    return parser.parse_args()


def load(folder: Path, url: str | None, crop: int | None) -> Tissue:
    """The whole volume, or a corner of ``crop`` voxels a side that ends where the volume does."""
    part = (slice(-crop if crop else 0, None), slice(crop), slice(crop))
    volume = open_volume(url or f"{folder}/fib25_train2_affinities.h5:affinities")
    affinities = volume.read(volume.spec.bounds)[:3, *part]
    with h5py.File(folder / "fib25_train2.h5") as file:
        truth = file["labels"][:][SCORED_FROM_Z:, *part[1:]]
    affinities = np.ascontiguousarray(affinities)
    return Tissue(affinities, affinities.astype(np.float32) / 255, np.ascontiguousarray(truth))


# ---------------------------------------------------------------- one side


def petaseg(tissue: Tissue) -> np.ndarray:
    """Affinities -> merge tree -> segments."""
    return merge(tissue, supervoxels(tissue), Linkage("mean", 0.5))


def supervoxels(tissue: Tissue) -> np.ndarray:
    """Unchunked: uint64 (z, y, x)."""
    box = tissue.box
    rules = default_rules(RESOLUTION_NM)
    return extract_supervoxels(tissue.affinities, None, read_box=box, core=box, roi=box, bounds=box, rules=rules).ids


def region_graph(tissue: Tissue, ids: np.ndarray, linkage: Linkage) -> RegionGraph:
    """The contacts of the supervoxels, with the scores that the linkage needs."""
    box, wanted = tissue.box, linkage.needs_histograms
    return build_region_graph(ids, tissue.affinities, NO_JOINS, core=box, roi=box, bounds=box, histograms=wanted)


def merge_tree(tissue: Tissue, graph: RegionGraph, linkage: Linkage) -> np.ndarray:
    """The merges down to ``STOP_SCORE``, in canonical order."""
    return canonical(agglomerate_node([graph], roi=tissue.box, linkage=linkage, stop_score=STOP_SCORE).merges)


def merge(tissue: Tissue, ids: np.ndarray, linkage: Linkage) -> np.ndarray:
    """Supervoxels -> merge tree -> segments: uint64 (z, y, x)."""
    graph = region_graph(tissue, ids, linkage)
    tree = merge_tree(tissue, graph, linkage)
    return apply_remap(ids, graph.regions, cut_global(tree, graph.regions, graph.sizes, CutRules(STOP_SCORE, 0, 1.0)))


# ---------------------------------------------------------------- the other side


@contextmanager
def silence() -> Iterator[None]:
    """waterz writes what it does to file descriptor 1, from C++."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
        sys.stdout.flush()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def waterz_merge(tissue: Tissue, fragments: np.ndarray | None, function: str = MEAN) -> np.ndarray:
    """Segments out of waterz, with its list of merges; ``fragments`` is overwritten."""
    stages = waterz.agglomerate(
        tissue.as_float,
        [1 - STOP_SCORE],
        fragments=fragments,
        scoring_function=function,
        return_merge_history=True,
    )
    (segments, _), *_ = stages
    return segments


def waterz_parts(tissue: Tissue, fragments: np.ndarray, function: str) -> tuple[float, float]:
    """Seconds until the graph and the queue of contacts are there, and for the merges and the segmentation."""
    stages = waterz.agglomerate(
        tissue.as_float,
        [-1.0, 1 - STOP_SCORE],
        fragments=fragments,
        scoring_function=function,
        return_merge_history=True,
    )
    return seconds(lambda: next(stages)), seconds(lambda: next(stages))


# ---------------------------------------------------------------- comparisons


def warm_up(tissue: Tissue) -> tuple[np.ndarray, RegionGraph]:
    """Everything once, so that numba has compiled; the supervoxels and their graph."""
    ids = supervoxels(tissue)
    for linkage in (Linkage("mean", 0.5), Linkage("quantile", 0.5)):
        merge(tissue, ids, linkage)
    return ids, region_graph(tissue, ids, Linkage("mean", 0.5))


def compare_segmentation(tissue: Tissue, rounds: int) -> bool:
    """The whole of both sides."""
    print("\n1. affinities -> merge tree and segments")
    return compare(
        lambda: petaseg(tissue), lambda: seconds(lambda: waterz_merge(tissue, None)), rounds, SEGMENTATION_LIMIT
    )


def compare_agglomeration(tissue: Tissue, ids: np.ndarray, linkage: Linkage, function: str, rounds: int) -> bool:
    """The claim, and the parts of both sides one by one."""
    print(f"\n2. the same supervoxels -> merge tree and segments, {linkage.kind} linkage")
    numbered = consecutive(ids)

    def other() -> float:
        fragments = numbered.copy()
        return seconds(lambda: waterz_merge(tissue, fragments, function))

    holds = compare(lambda: merge(tissue, ids, linkage), other, rounds, AGGLOMERATION_LIMIT)
    graph = region_graph(tissue, ids, linkage)
    own = [
        min(seconds(lambda: region_graph(tissue, ids, linkage)) for _ in range(rounds)),
        min(seconds(lambda: merge_tree(tissue, graph, linkage)) for _ in range(rounds)),
    ]
    with silence():
        theirs = np.min([waterz_parts(tissue, numbered.copy(), function) for _ in range(rounds)], axis=0)
    print(f"   petaseg: graph {own[0]:.3f} s, then queue and merges {own[1]:.3f} s")
    print(f"   waterz: graph and queue {theirs[0]:.3f} s, then merges and segments {theirs[1]:.3f} s")
    return holds


def compare(own: Callable[[], object], other: Callable[[], float], rounds: int, limit: float) -> bool:
    """Run both in turns; whether the best rounds keep the limit. ``other`` gives its own seconds."""
    first, second = [], []
    for _ in range(rounds):
        first.append(seconds(own))
        with silence():
            second.append(other())
        print(f"   petaseg {first[-1]:7.3f} s   waterz {second[-1]:7.3f} s")
    ratio = min(second) / min(first)
    print(f"   waterz / petaseg: {ratio:.2f} (limit {limit})")
    return ratio >= limit


def seconds(run: Callable[[], object]) -> float:
    """Processor time of this process."""
    began = time.process_time()
    run()
    return time.process_time() - began


def consecutive(ids: np.ndarray) -> np.ndarray:
    """Ids as waterz wants them: 0, 1, 2 ..., uint64."""
    names, numbers = np.unique(ids, return_inverse=True)
    return (numbers.reshape(ids.shape) + int(names[0] != 0)).astype(np.uint64)


def compare_quality(tissue: Tissue, ids: np.ndarray, graph: RegionGraph) -> list[bool]:
    """Each side at the threshold with the lowest VOI, then at the one with the lowest adapted Rand error."""
    print("\n3. quality; VOI in bits (split / merge)")
    own = sweep(tissue.table(ids), merge_tree(tissue, graph, Linkage("mean", 0.5)), THRESHOLDS)
    other = waterz_sweep(tissue)
    holds = []
    for name, value in (("VOI", lambda s: s.voi), ("adapted Rand error", lambda s: s.adapted_rand_error)):
        print(f"   at the best threshold for {name}:")
        found = [min(points, key=lambda point: value(point.scores)) for points in (own, other)]
        for side, point in zip(("petaseg", "waterz"), found, strict=True):
            describe(side, point)
        holds.append(value(found[0].scores) < value(found[1].scores))
    return holds


def waterz_sweep(tissue: Tissue) -> list[SweepPoint]:
    """Scores over the same thresholds, as mean affinities."""
    limits = sorted(float(1 - t) for t in THRESHOLDS)
    with silence():
        stages = zip(limits, waterz.agglomerate(tissue.as_float, limits), strict=True)
        return [SweepPoint(1 - limit, score(tissue.table(segments))) for limit, segments in stages]


def describe(side: str, point: SweepPoint) -> None:
    """Print the scores of one side."""
    scores = point.scores
    print(
        f"   {side:8} threshold {point.threshold:.3f}   VOI {scores.voi:.3f} ({scores.voi_split:.3f} / "
        f"{scores.voi_merge:.3f})   adapted Rand error {scores.adapted_rand_error:.3f}   "
        f"neurons found {scores.neurons_found} of {scores.neurons}"
    )


if __name__ == "__main__":
    sys.exit(main())
