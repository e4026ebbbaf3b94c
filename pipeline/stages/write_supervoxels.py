"""Fragments become whole supervoxels: the parts that chunk faces had cut get one id again."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.stages.relabel import Relabel


@dataclass(frozen=True)
class WriteSupervoxels(Relabel):
    """Fragments -> supervoxels (uint64): the parts of a basin that chunk faces had cut get one id again.

    The table's column depends on the joins alone, never on the threshold: so ``upstream`` is the region graph's
    fingerprint, and another threshold does not write the supervoxels again.
    """

    name = "write_supervoxels"
    column = "supervoxel"
    volume = "supervoxels"
