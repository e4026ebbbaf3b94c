"""From what a user names to edits in supervoxels, and what edits would change, before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ConfigError, counted
from pipeline.geometry import BoundingBox, Vec
from pipeline.runs.edit_log import EditLog, read_log, replace_log
from pipeline.runs.edits_named import Place, Wanted, words
from pipeline.runs.lease import Lease
from pipeline.runs.run import Run
from pipeline.segmentation.edits import MERGE, Edit, Fit, apply_edits
from pipeline.segmentation.merge_tree import Assignment
from pipeline.stages.apply_edits import voxels_of
from pipeline.stages.assign_segments import AssignSegments
from pipeline.stages.chain_stage import TreeStage
from pipeline.stages.cut_merge_tree import CutMergeTree
from pipeline.stages.cut_tables import CutTables, chunk_of, holds, row_of
from pipeline.stages.tissue import tissue
from pipeline.storage import ObjectStore


@dataclass(frozen=True)
class Spot:
    """What lies at a place, in the present result."""

    supervoxel: int
    segment: int


@dataclass(frozen=True)
class Foretold:
    """What edits would make of the present result."""

    before: tuple[tuple[int, int], ...]
    """Id and voxels of the segments that change, ascending."""
    after: tuple[tuple[int, int], ...]
    """Id and voxels of the segments that come of them, ascending."""
    fits: tuple[Fit, ...]
    """How each edit would fit."""


@dataclass(frozen=True)
class Change:
    """A change of a run's log that is not made yet."""

    before: EditLog
    after: EditLog
    foretold: Foretold

    def store(self, run: Run) -> None:
        """Replace the log, and thereby what the run's result is to be; the labels are written by its next driver.

        Raises ``LeaseError`` if another driver works on the run, or if somebody has changed the log meanwhile.
        """
        with Lease(run.store, seconds=run.config.execution.lease_seconds):
            replace_log(ObjectStore(run.home), self.before, self.after)


def plan_edits(run: Run, wanted: Sequence[Wanted]) -> Change:
    """What more edits make of a run whose result is complete.

    Raises ``ConfigError`` for a run of another kind, for what ``resolve`` refuses, and for an edit that would change
    nothing.
    """
    refuse_others(run)
    log = read_log(ObjectStore(run.home))
    after = log.with_edits(resolve(run, wanted))
    foretold = foretell(run, after.edits)
    for each, fit in zip(wanted, foretold.fits[len(log.entries) :], strict=True):
        if fit != Fit.APPLIED:
            raise ConfigError(
                f"{each.source} would change nothing, since an edit before it has done this already: leave it out"
            )
    return Change(log, after, foretold)


def plan_undo(run: Run, count: int) -> Change:
    """What a run whose result is complete becomes without its last edits; ``ConfigError`` if it has fewer."""
    refuse_others(run)
    log = read_log(ObjectStore(run.home))
    if not 0 < count <= len(log.entries):
        raise ConfigError(
            f"--undo is {count}, and {run.source} has {counted(len(log.entries), 'edit')}: take back at least 1, "
            "and no more than there are (`petaseg edit RUN --list` shows them)"
        )
    after = log.without_last(count)
    return Change(log, after, foretell(run, after.edits))


def refuse_others(run: Run) -> None:
    """``ConfigError`` unless a run makes neurons."""
    if run.kind.name != "neurons":
        raise ConfigError(
            f"{run.source} makes {run.kind.words}, and only neurons are edited, since these have no merge tree: change "
            "thresholds and seeds with `petaseg relabel`"
        )


def resolve(run: Run, wanted: Sequence[Wanted]) -> list[Edit]:
    """The edits in supervoxels; all places are about the present result, also those behind the first edit.

    Raises ``ConfigError`` for what is not there, for a merge of a segment with itself, and for a split whose sides lie
    in several segments or share a supervoxel.
    """
    return [_merge(run, each) if each.kind == MERGE else _split(run, each) for each in wanted]


def foretell(run: Run, edits: Sequence[Edit]) -> Foretold:
    """What the result of a finished run becomes if these are all its edits."""
    stage = run.stage(CutMergeTree.name)
    assert isinstance(stage, TreeStage)
    named = [each for edit in (*run.edits, *edits) for each in edit.supervoxels]
    members = CutTables.stored(stage).members(named)
    then = apply_edits(edits, members)
    before, after = _changed(apply_edits(run.edits, members).ids, then.ids, members.sizes)
    return Foretold(before, after, then.fits)


def spot_at(run: Run, place: Place, source: str) -> Spot:
    """Supervoxel and segment of a place in the present result; ``ConfigError`` if there are none.

    An id is taken as that of a supervoxel; a segment has the id of its smallest one.
    """
    return _at_id(run, place, source) if isinstance(place, int) else _at_voxel(run, Vec(*place), source)


def _merge(run: Run, wanted: Wanted) -> Edit:
    one, other = (_segment_at(run, each, wanted.source) for each in (*wanted.first, *wanted.second))
    if one.segment == other.segment:
        raise ConfigError(
            f"{wanted.source} is about one segment, {one.segment}; a merge needs two: look at both in `petaseg view`"
        )
    return Edit(MERGE, (one.supervoxel,), (other.supervoxel,))


def _split(run: Run, wanted: Wanted) -> Edit:
    sides = [[spot_at(run, each, wanted.source) for each in side] for side in (wanted.first, wanted.second)]
    whole = sides[0][0] if wanted.segment is None else _segment_at(run, wanted.segment, wanted.source)
    for place, spot in zip((*wanted.first, *wanted.second), (*sides[0], *sides[1]), strict=True):
        if spot.segment != whole.segment:
            raise ConfigError(
                f"{wanted.source}: {words(place)} lies in segment {spot.segment}, and {whole.segment} is to be split; "
                "both sides must lie in that segment: choose other points"
            )
    first, second = (tuple(sorted({spot.supervoxel for spot in side})) for side in sides)
    if shared := sorted(set(first) & set(second)):
        raise ConfigError(
            f"{wanted.source}: both sides hold supervoxel {shared[0]}, and a supervoxel is never divided: choose "
            "points farther apart, or make smaller supervoxels (supervoxels.threshold, supervoxels.max_distance_nm)"
        )
    return Edit(wanted.kind, first, second)


def _segment_at(run: Run, place: Place, source: str) -> Spot:
    """As ``spot_at``, but an id must be that of a segment."""
    spot = spot_at(run, place, source)
    if isinstance(place, int) and spot.segment != place:
        raise ConfigError(
            f"{source}: {place} is no segment of the present result, but a supervoxel of segment {spot.segment}: name "
            "that, or a point z,y,x"
        )
    return spot


def _at_id(run: Run, name: int, source: str) -> Spot:
    chunk = chunk_of(run.layout, name)
    row = None if chunk is None else row_of(_table(run, chunk.core.start), name)
    if row is None or row[0] != name:
        raise ConfigError(
            f"{source}: there is no segment and no supervoxel {name} in {run.result_url}; an id is what a viewer shows "
            "at a voxel, or name a point z,y,x"
        )
    return Spot(*row)


def _at_voxel(run: Run, voxel: Vec, source: str) -> Spot:
    layout = run.layout
    if not holds(layout, voxel):
        raise ConfigError(
            f"{source}: point {words(voxel)} is outside of the region of interest {layout.roi}; points are z,y,x"
        )
    box = BoundingBox.from_shape((1, 1, 1), voxel)
    fragment = int(layout.read("fragments", box)[0, 0, 0])
    if fragment:
        row = row_of(_table(run, voxel), fragment)
        assert row is not None, "a table has all fragments of its chunk"
        return Spot(*row)
    found = tissue(run.inputs.mask_url, layout, box)
    if found is not None and not found.all():
        raise ConfigError(f"{source}: point {words(voxel)} is masked, so no segment is there: choose a point in one")
    raise ConfigError(
        f"{source}: point {words(voxel)} lies in the background, beyond every segment: choose a point in one"
    )


def _table(run: Run, voxel: Vec) -> Assignment:
    """The final table of the chunk of a voxel."""
    grid = run.layout.grid()
    return Assignment.from_arrays(run.layout.get_part(AssignSegments.name, grid.chunk(grid.index_of(voxel))))


def _changed(
    before: np.ndarray, after: np.ndarray, sizes: np.ndarray
) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """Ids and voxels of the segments that differ, before and after; all are (supervoxels,)."""
    pairs = np.unique(np.stack([before, after], axis=1), axis=0)
    same = [
        pair[0]
        for pair in pairs
        if pair[0] == pair[1] and (pairs[:, 0] == pair[0]).sum() == (pairs[:, 1] == pair[1]).sum() == 1
    ]
    differs = ~np.isin(before, np.array(same, np.uint64))
    one, two = (voxels_of(ids[differs], sizes[differs]) for ids in (before, after))
    return tuple(zip(*(each.tolist() for each in one), strict=True)), tuple(
        zip(*(each.tolist() for each in two), strict=True)
    )
