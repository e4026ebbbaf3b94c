"""The summary of a class map: how many voxels have each class, and whether that can be right.

The workers count the voxels of each class and the ledger adds them up, so a volume of any size takes no longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.runs.run import Run
from pipeline.runs.summary import all_masked, masked_voxels
from pipeline.stages.write_classes import COUNTER, WriteClasses


@dataclass(frozen=True)
class ClassSummary:
    """A class map in numbers."""

    labels: str
    """The volume: a path or URL."""
    voxels: int
    """Voxels of the region of interest."""
    masked: int
    """Voxels that the mask excludes; they are stored as 0, and counted in no class."""
    classes: tuple[int, ...]
    """Voxels of each class, 0 first."""
    voxel_um3: float
    """The volume of a voxel in cubic micrometres."""
    kind: str = "classes"
    """What the run makes, a key of ``KINDS``."""
    warnings: tuple[str, ...] = ()
    """What is implausible, with the likely reason and what to try."""

    @property
    def found(self) -> int:
        """The number of classes that a voxel has."""
        return sum(1 for voxels in self.classes if voxels)

    def share(self, number: int) -> float:
        """The share of a class in the voxels that are not masked; 0 if there are none."""
        return self.classes[number] / max(1, sum(self.classes))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def summarise_classes(run: Run) -> ClassSummary:
    """The summary of a run whose class map is complete."""
    stage = run.stage(WriteClasses.name)
    assert isinstance(stage, WriteClasses)
    counters = run.ledger(stage, read_only=True).summary().counters
    z, y, x = run.layout.resolution_nm
    found = ClassSummary(
        labels=run.result_url,
        voxels=run.layout.roi.voxels,
        masked=masked_voxels(run) or 0,
        classes=tuple(int(counters.get(f"{COUNTER}{number}", 0)) for number in range(stage.count)),
        voxel_um3=z * y * x / 1e9,
    )
    return replace(found, warnings=tuple(_warnings(found)))


def _warnings(found: ClassSummary) -> Iterator[str]:
    if found.masked == found.voxels:
        yield all_masked(found.voxels)
    elif found.found == 1:
        only = next(number for number, voxels in enumerate(found.classes) if voxels)
        yield (
            f"all voxels have class {only}: the network may have been trained too briefly, or on images of another "
            "contrast or size of voxels. Look at it in report/overview.png"
        )
