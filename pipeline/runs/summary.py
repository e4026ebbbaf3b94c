"""The summary of a finished run: how many neurons, how large, how much has no label, and whether that can be right.

The stage that cuts the merge tree adds up the sizes of all segments, from the chunks to the root, and the ledger adds
up the masked voxels. So a summary reads one small object, whatever the size of the volume.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.errors import counted
from pipeline.runs.applied import Threshold
from pipeline.runs.run import Run
from pipeline.segmentation.sizes import Sizes
from pipeline.stages.apply_edits import ApplyEdits
from pipeline.stages.landscape import lowest_threshold
from pipeline.stages.measure import Measure

SPECK = 64
"""A segment of fewer voxels is a speck: no neuron is that small in one piece."""
MANY_SPECKS = 1000
"""Specks are warned of if there are at least this many, and more of them than of other segments."""
DOMINANT = 0.5
"""A segment with more than this share of all labelled voxels is warned of."""
EMPTY = 0.9
"""A larger share of voxels without label, of those that are not masked, is warned of."""


@dataclass(frozen=True)
class Summary:
    """A segmentation in numbers."""

    labels: str
    """The volume: a path or URL."""
    threshold: Threshold | None
    """``None`` for labels that were given."""
    voxels: int
    """Voxels of the region of interest."""
    segments: int
    labelled: int
    """Voxels with a label."""
    masked: int | None
    """Voxels without label that the mask excludes; ``None`` if there is a mask and it is not known."""
    largest: tuple[tuple[int, int], ...]
    """Label and voxels of the largest segments."""
    median: int
    """Voxels of a segment in the middle, to three in a hundred."""
    half: int
    """Half of the labelled voxels are in segments of at least this many, to three in a hundred."""
    specks: int
    """Segments of fewer than ``SPECK`` voxels."""
    voxel_um3: float
    """The volume of a voxel in cubic micrometres."""
    kind: str = "neurons"
    """What the run makes, a key of ``KINDS``."""
    warnings: tuple[str, ...] = ()
    """What is implausible, with the likely reason and what to try."""

    @property
    def background(self) -> int:
        """Voxels without label that no mask excludes, as far as is known."""
        return self.voxels - self.labelled - (self.masked or 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "background": self.background, "speck_voxels": SPECK}


def summarise(run: Run) -> Summary:
    """The summary of a run whose tables are cut, or whose given labels are measured."""
    found = summary_of(run, sizes_of(run))
    return replace(found, warnings=(*_about_edits(run), *found.warnings))


def _about_edits(run: Run) -> Iterator[str]:
    """Edits that are not applied, or not in full."""
    stage = run.stage(ApplyEdits.name) if run.edits else None
    left_out = sum(not fit.fits for fit in stage.fits()) if isinstance(stage, ApplyEdits) else 0
    if left_out:
        yield (
            f"{left_out} of {counted(len(run.edits), 'edit')} do not fit to these supervoxels, and are left out in "
            f"full or in part: `petaseg edit {shlex.quote(run.source)} --list` says which"
        )


def sizes_of(run: Run) -> Sizes:
    """The sizes of all segments of a run whose tables are cut, or whose given labels are measured."""
    if not run.kind.can_be_cut:
        stage = run.stage(Measure.name)
        assert isinstance(stage, Measure)
        return Sizes.sum([Sizes.none(), *(Sizes.of(rows.ids, rows.voxels) for rows in stage.rows())])
    name = ApplyEdits.name if run.edits else run.cut.stage.name
    root = next(iter(run.stage(name).grids()[-1]))
    return Sizes.from_arrays(run.layout.get_part(name, root))


def summary_of(run: Run, sizes: Sizes) -> Summary:
    """The summary of a segmentation of a run whose segments have these sizes."""
    z, y, x = run.layout.resolution_nm
    found = Summary(
        labels=run.result_url,
        threshold=run.chosen,
        voxels=run.layout.roi.voxels,
        segments=sizes.count,
        labelled=sizes.total,
        masked=masked_voxels(run),
        largest=tuple((int(label), int(voxels)) for label, voxels in sizes.largest),
        median=sizes.quantile(0.5),
        half=sizes.half_of_the_volume(),
        specks=sizes.below(SPECK),
        voxel_um3=z * y * x / 1e9,
        kind=run.kind.name,
    )
    return Summary(**{**vars(found), "warnings": tuple(_warnings(run, found))})


def masked_voxels(run: Run) -> int | None:
    """Masked voxels, as the workers counted them; an earlier petaseg did not."""
    if run.inputs.mask_url is None:
        return 0
    counters = run.ledger(run.stage(run.kind.first.name), read_only=True).summary().counters
    return int(counters["masked"]) if "masked" in counters else None


def _warnings(run: Run, found: Summary) -> Iterator[str]:
    if found.masked == found.voxels:
        yield all_masked(found.voxels)
    elif found.threshold is None:
        yield from _about_labels(found)
    elif run.kind.name == "neurons":
        yield from _about_neurons(run, found, found.threshold.value)
    else:
        yield from _about_objects(run, found, found.threshold.value)


def all_masked(voxels: int) -> str:
    """The warning that the mask leaves nothing."""
    return (
        f"the mask excludes all {voxels:,} voxels, so there is no label: it is 0 outside of the tissue; is it "
        "inverted, or of another place (#offset=z,y,x)?"
    )


def _about_labels(found: Summary) -> Iterator[str]:
    """What is implausible in labels that were given."""
    if not found.segments:
        yield "no voxel has a label: is input.labels the right volume, and input.start and stop the right place?"


def _about_objects(run: Run, found: Summary, threshold: float) -> Iterator[str]:
    """What is implausible in a mask or in objects, which may be few: none at all, or nothing else."""
    words, seeds = run.kind.words, "no seed is inside, " if run.kind.name == "objects" else ""
    if not found.segments:
        yield (
            f"there are no {words}: the head is nowhere above {threshold:g}, {seeds}or all are smaller "
            f"than min_size. Look at it in report/overview.png{_lower_threshold(run, threshold)}"
        )
    if found.labelled == found.voxels - (found.masked or 0) and found.segments:
        yield (
            f"all voxels belong to {words}: the threshold {threshold:g} is too low, or the head is "
            "inverted. Look at it in report/overview.png"
        )


def _lower_threshold(run: Run, threshold: float) -> str:
    """How to try a threshold that the stored tables reach; an empty text if they reach no lower one."""
    lowest = lowest_of(run)
    if lowest >= threshold:
        return ""
    hint = run.relabel_hint("--threshold", f"{(threshold + lowest) / 2:g}")
    return f"; a lower threshold: `{hint}`"


def lowest_of(run: Run) -> float:
    """The lowest threshold of a mask or of objects that the stored tables reach."""
    assert run.landscape is not None, "the run makes no neurons"
    return lowest_threshold(run.landscape.head, run.config.segmentation)


def _about_neurons(run: Run, found: Summary, threshold: float) -> Iterator[str]:
    open_voxels = found.voxels - (found.masked or 0)
    if found.background > EMPTY * open_voxels:
        yield (
            f"{found.background / open_voxels:.0%} of the voxels have no label. The affinities are low nearly "
            f"everywhere: {_other_network(run)}. Look at them in report/overview.png; `{run.hint('plan')}` shows what "
            "another supervoxels.threshold (lower) would cost"
        )
    if found.largest and found.largest[0][1] > DOMINANT * found.labelled:
        label, voxels = found.largest[0]
        yield (
            f"segment {label} holds {voxels / found.labelled:.0%} of all labelled voxels: neurons are merged with each "
            f"other, unless this is a piece of one cell. The threshold {threshold:g} is too low, or the "
            f"network sees no membranes here; try a higher one: `{_preview(run, threshold, higher=True)}`"
        )
    if found.specks >= MANY_SPECKS and found.specks > found.segments / 2:
        yield (
            f"{found.specks:,} of {found.segments:,} segments are specks of fewer than {SPECK} voxels. The threshold "
            f"{threshold:g} is too high, or small pieces should follow their next merge: "
            f"`{_preview(run, threshold, higher=False)}`, or `{run.relabel_hint('--min-size', '500')}`"
        )


def _other_network(run: Run) -> str:
    if run.inputs.network is None and "affinities" not in run.inputs.heads:
        return "they may be inverted: 255 is surely membrane"
    if run.inputs.network is None:
        return "they may be inverted or of another convention (input.affinity_offsets)"
    return f"the model {run.inputs.network.card.name} may not fit this tissue or its contrast"


def _preview(run: Run, threshold: float, *, higher: bool) -> str:
    """The command that looks at other thresholds."""
    lowest = run.config.agglomeration.stop_score
    end = 1.0 if higher else lowest
    steps = [threshold + (end - threshold) * share for share in (0.2, 0.4, 0.6)]
    return run.relabel_hint("--preview", ",".join(f"{step:.2g}" for step in steps))
