"""Blocks where augmented copies of a prediction disagree: there the network has guessed.

A run with ``inference.augmentation_rule: mean+extremes`` stores the least and the largest value of the copies. Their
mean difference is taken in blocks of ``BLOCK`` voxels on each side, counted from voxel 0, so chunks do not matter. How
many minutes a block costs is not known; so the blocks are a list of their own, in ``tables/disagreement.parquet``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.models.heads import EXTREMES, WITH_EXTREMES
from pipeline.runs.run import Run
from pipeline.shapes.measure_tables import AXES, table_of, to_parquet
from pipeline.stages.blend_heads import BlendHeads
from pipeline.stages.tissue import tissue
from pipeline.storage import ObjectStore

TABLE = "tables/disagreement.parquet"
BLOCK, READ = 64, 256
"""Voxels along each side of a block, and of what is read at once."""
TOP = 100
"""Blocks that are listed."""
COLUMNS = {
    **{axis: f"voxel in the middle of the block along {axis}" for axis in AXES},
    "head": "the predicted head",
    "spread": "mean difference of the largest and the least value of the copies, 0..1, over the tissue of the block",
}
"""Columns of the table, and what they mean."""


@dataclass(frozen=True)
class Block:
    """One row."""

    z: int
    y: int
    x: int
    head: str
    spread: float


def find_blocks(run: Run, top: int = TOP) -> list[Block]:
    """The blocks of a finished run with the largest spread; of equal ones the smaller z, y, x, then head.

    Raises:
        ConfigError: the run does not store what its copies have predicted.
    """
    best: list[Block] = []
    for head in heads_with_extremes(run):
        for box in _boxes(run.layout.roi, READ):
            best = sorted([*best, *_of_box(run, head, box)], key=_order)[:top]
    return best


def heads_with_extremes(run: Run) -> tuple[str, ...]:
    """The heads of which a run has stored the extremes of the copies; ``ConfigError`` if there is none."""
    stages = [stage for stage in run.stages if isinstance(stage, BlendHeads)]
    names = {output.name for stage in stages for output in stage.outputs}
    heads = tuple(sorted(name for name in names if all(name + added in names for added in EXTREMES)))
    if not heads:
        raise ConfigError(
            f"{run.url} does not store what augmented copies of its image have predicted; set inference.augmentation "
            f"and inference.augmentation_rule: {WITH_EXTREMES}, and predict it again"
        )
    return heads


def _order(block: Block) -> tuple[float, int, int, int, str]:
    return -block.spread, block.z, block.y, block.x, block.head


def _boxes(roi: BoundingBox, side: int) -> Iterator[BoundingBox]:
    """The cubes of a lattice from voxel 0 that the region of interest touches, cut at it, in C order."""
    ranges = (range(first // side, -(-last // side)) for first, last in zip(roi.start, roi.stop, strict=True))
    for index in product(*ranges):
        start = Vec(*index) * side
        yield BoundingBox(start, start + side).intersect(roi)


def _of_box(run: Run, head: str, box: BoundingBox) -> Iterator[Block]:
    """The blocks of a box that have tissue."""
    layout = run.layout
    least, largest = (layout.read(head + added, box).reshape(-1, *box.shape) for added in EXTREMES)
    mask = tissue(run.inputs.mask_url, layout, box)
    spread = (largest.astype(np.int64) - least).sum(axis=0)
    for block in _boxes(box, BLOCK):
        at = block.slices(box.start)
        within = np.ones(block.shape, bool) if mask is None else mask[at]
        if within.any():
            mean = int(spread[at][within].sum()) / (int(within.sum()) * len(least) * 255)
            yield Block(*block.middle, head, mean)


def write_blocks(run: Run, blocks: list[Block]) -> None:
    """Store the table; under the driver's lease."""
    types = {**dict.fromkeys(AXES, np.int64), "head": np.str_, "spread": np.float64}
    columns: list[np.ndarray] = [np.array([getattr(each, name) for each in blocks], types[name]) for name in COLUMNS]
    ObjectStore(run.home).put(TABLE, to_parquet([table_of(COLUMNS, columns)], COLUMNS), durable=True)
