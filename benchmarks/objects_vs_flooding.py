"""Objects in chunks against scikit-image's watershed of the whole volume, in processor time of one process.

    python benchmarks/objects_vs_flooding.py [--side 256] [--chunk 128] [--rounds 3]

1. The landscape is a smooth random field with fine texture, as a network's foreground has it; seeds lie where a second
   field, as of contours, is not low. petaseg goes from the landscape to labels in chunks, all steps included.
   scikit-image gets the whole volume and labels its seeds with ``skimage.measure.label``.
2. The steps of petaseg on one chunk, beside supervoxels and region graph of affinities made of the same landscape.
3. The voxels in which the two differ. Only ties may: ``tests/segmentation/objects/test_watershed.py`` proves it.

Exit status 1 if petaseg takes more time than scikit-image.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import watershed

from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import Chunk, ChunkGrid
from pipeline.segmentation.merge_tree import Assignment
from pipeline.segmentation.objects.basin_graph import BasinGraph, build_basin_graph
from pipeline.segmentation.objects.landscape import extract_basins
from pipeline.segmentation.objects.object_graph import chunk_objects
from pipeline.segmentation.objects.rules import LandscapeRules, ObjectRules
from pipeline.segmentation.objects.union import NodeUnion, assign_node, unite, write_objects
from pipeline.segmentation.region_graph import build_region_graph
from pipeline.segmentation.supervoxels import default_rules, extract_supervoxels
from pipeline.segmentation.warm_up import warm_up

LIMIT = 1.0
BASINS = LandscapeRules(floor=40)
RULES = ObjectRules(mask=60, seed=180)
NO_JOINS = np.empty((0, 2), np.int64)


@dataclass(frozen=True)
class Tissue:
    """Two heads of a network."""

    landscape: np.ndarray
    """uint8 (z, y, x)"""
    seeds_within: np.ndarray
    """bool (z, y, x)"""

    @property
    def box(self) -> BoundingBox:
        """Of both."""
        return BoundingBox.from_shape(self.landscape.shape)


def main() -> int:
    """Print both sides, the steps and the voxels that differ."""
    arguments = parse()
    warm_up()
    tissue = made_up(arguments.side)
    own, labels = best_of(arguments.rounds, lambda: find_objects(tissue, Vec(*(arguments.chunk,) * 3)))
    other, flooded = best_of(arguments.rounds, lambda: flood(tissue))
    print(f"{tissue.box.shape} voxels, {np.mean(tissue.landscape > RULES.mask):.0%} in the mask")
    print(f"petaseg       {own:7.2f} s of processor time, {len(np.unique(labels)) - 1} objects")
    print(f"scikit-image  {other:7.2f} s, {flooded.max()} objects")
    print(f"scikit-image / petaseg: {other / own:.2f} (limit {LIMIT})")
    print_steps(tissue, arguments.rounds)
    print(f"voxels of the mask with another object: {share_that_differs(labels, flooded):.2%}")
    return int(other < LIMIT * own)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def made_up(side: int) -> Tissue:
    """Blobs with texture, and contours between some of them."""
    foreground = 2.2 * field(side, 8, 0) - 1 + 0.5 * field(side, 1.2, 1)
    landscape = (255 / (1 + np.exp(-foreground))).astype(np.uint8)
    return Tissue(landscape, np.abs(field(side, 8, 2)) > 0.3)


def field(side: int, smoothness: float, seed: int) -> np.ndarray:
    """Smooth noise of standard deviation 1: float32 (z, y, x)."""
    noise = np.random.default_rng(seed).standard_normal((side,) * 3).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, smoothness)
    return smooth / smooth.std()


def best_of(rounds: int, run: Callable[[], Any]) -> tuple[float, Any]:
    """The processor seconds of the best round, and the result."""
    took = []
    for _ in range(rounds):
        began = time.process_time()
        result = run()
        took.append(time.process_time() - began)
    return min(took), result


# ---------------------------------------------------------------- both sides


def flood(tissue: Tissue) -> np.ndarray:
    """scikit-image: int (z, y, x)."""
    markers = label((tissue.landscape > RULES.seed) & tissue.seeds_within, connectivity=1)
    return watershed(255 - tissue.landscape, markers, mask=tissue.landscape > RULES.mask, connectivity=1)


def find_objects(tissue: Tissue, chunk_shape: Vec) -> np.ndarray:
    """petaseg, chunk by chunk and node by node: uint64 (z, y, x)."""
    levels = ChunkGrid(tissue.box, tissue.box, chunk_shape, BASINS.halo()).levels()
    ids, joins = np.zeros(tissue.landscape.shape, np.uint64), {}
    for chunk in levels[0]:
        ids[chunk.core.slices()], joins[chunk.index] = basins(tissue, chunk)
    unions = {
        chunk.index: node([chunk_objects(graph(tissue, ids, joins[chunk.index], chunk), RULES)], tissue)
        for chunk in levels[0]
    }
    labels = np.zeros_like(ids)
    for chunk, table in assigned(levels, unions, tissue).items():
        part = chunk.core.slices()
        found = write_objects(ids[part], tissue.landscape[part], table.fragment, table.segment, RULES.mask)
        labels[part] = found
    return labels


def basins(tissue: Tissue, chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
    """Fragments and joins of a chunk."""
    read, box = chunk.read_box.slices(), tissue.box
    heads = tissue.landscape[read], None, tissue.seeds_within[read]
    cut = extract_basins(*heads, read_box=chunk.read_box, core=chunk.core, roi=box, bounds=box, rules=BASINS)
    return cut.ids, cut.joins


def graph(tissue: Tissue, ids: np.ndarray, joins: np.ndarray, chunk: Chunk) -> BasinGraph:
    """The basin graph of a chunk."""
    part, boxes = (
        chunk.core.grow(*BASINS.context()).intersect(tissue.box).slices(),
        {"roi": tissue.box, "bounds": tissue.box},
    )
    heads = tissue.landscape[part], tissue.seeds_within[part]
    return build_basin_graph(ids[part], *heads, joins, core=chunk.core, rules=BASINS, **boxes)


def node(children: list, tissue: Tissue) -> NodeUnion:
    """One node of the tree of chunks."""
    return unite(children, roi=tissue.box, rules=RULES)


def assigned(levels: list[ChunkGrid], leaves: dict, tissue: Tissue) -> dict[Chunk, Assignment]:
    """Up from the chunks and down again: the table of every chunk."""
    unions = [leaves]
    for below, grid in pairwise(levels):
        unions.append({c.index: node([unions[-1][b.index].up for b in below.children(c)], tissue) for c in grid})
    tables: dict = {}
    for grid, level in zip(reversed(levels), reversed(unions), strict=True):
        tables = {c.index: assign_node(level[c.index], tables.get(c.index // 2)) for c in grid}
    return {chunk: tables[chunk.index] for chunk in levels[0]}


# ---------------------------------------------------------------- steps and differences


def print_steps(tissue: Tissue, rounds: int) -> None:
    """Each step on the whole volume as one chunk, beside the two stages that make neurons of it."""
    box, chunk = tissue.box, Chunk(0, Vec(0, 0, 0), tissue.box, tissue.box)
    boxes = {"core": box, "roi": box, "bounds": box}
    first, (ids, joins) = best_of(rounds, lambda: basins(tissue, chunk))
    second, found = best_of(rounds, lambda: graph(tissue, ids, joins, chunk))
    third, union = best_of(rounds, lambda: node([chunk_objects(found, RULES)], tissue))
    table = assign_node(union)
    last, _ = best_of(rounds, lambda: write_objects(ids, tissue.landscape, table.fragment, table.segment, RULES.mask))
    print(f"one chunk: basins {first:.2f}, basin graph {second:.2f}, unite {third:.2f}, write {last:.2f} s")
    print(f"           {len(found.regions)} basins, {len(found.edges)} passes, {megabytes(found):.0f} MB of tables")
    affinities = np.stack([np.minimum(tissue.landscape, np.roll(tissue.landscape, 1, axis)) for axis in range(3)])
    rules = default_rules(Vec(8, 8, 8))
    first, cut = best_of(rounds, lambda: extract_supervoxels(affinities, None, read_box=box, rules=rules, **boxes))
    second, regions = best_of(rounds, lambda: build_region_graph(cut.ids, affinities, NO_JOINS, **boxes))
    print(f"neurons:   supervoxels {first:.2f}, region graph {second:.2f} s, {len(regions.regions)} supervoxels")


def megabytes(found: BasinGraph) -> float:
    """The size of the tables of a chunk, uncompressed."""
    return sum(array.nbytes for array in found.to_arrays().values()) / 1e6


def share_that_differs(labels: np.ndarray, flooded: np.ndarray) -> float:
    """Of the voxels that either labels, those whose object is not the one with the same seed."""
    either = (labels > 0) | (flooded > 0)
    pairs, counts = np.unique(np.stack([labels[either], flooded[either].astype(np.uint64)]), axis=1, return_counts=True)
    order = np.argsort(counts)[::-1]
    _, first = np.unique(pairs[1][order], return_index=True)
    return 1 - counts[order][first].sum() / counts.sum()


if __name__ == "__main__":
    sys.exit(main())
