"""Runs of any size, which stay on disk or in a bucket: restartable, provable, and watched from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from petaseg.edits import Place, store_edits
from petaseg.tables import as_overrides, forget_opened, run_of
from pipeline.volumes import Volume, open_volume

if TYPE_CHECKING:
    from pipeline.runs.report import AnyScores
    from pipeline.runs.run import Run
    from pipeline.runs.status import RunStatus


@dataclass(frozen=True, repr=False)
class Result:
    """A finished run; its volumes are opened when they are asked for, and read where they are indexed."""

    run_directory: str
    """Path or URL."""
    threshold: float | None
    """Where the merge tree was cut; or the value that voxels of a mask or objects exceed; None for a class map."""
    scores: AnyScores | None
    """Against the ground truth of the run file; None without one."""
    picture: str
    """Path or URL of the picture (png) of the run."""
    volume: str = "labels"
    """The name of the volume with the result: labels of neurons, mask, objects, or class_map."""

    @property
    def labels(self) -> Volume:
        """Neurons or objects, uint64 (z, y, x), 0 = none; a mask and a class map are uint8."""
        return self._volume(self.volume)

    @property
    def supervoxels(self) -> Volume:
        """Supervoxels, uint64 (z, y, x), 0 = none."""
        return self._volume("supervoxels")

    @property
    def affinities(self) -> Volume:
        """What the network predicted, uint8 (3, z, y, x); ``VolumeError`` if the affinities were given to the run."""
        return self._volume("affinities")

    def edit(
        self,
        *,
        merge: Iterable[tuple[Place, Place]] = (),
        split: Iterable[tuple[Iterable[Place], Iterable[Place]]] = (),
        undo: int = 0,
        progress: bool = False,
    ) -> Result:
        """Correct the neurons and write the labels that change; edits hold at any threshold (docs/editing.md).

        Args:
            merge: pairs of segments that are one neuron, each an id in ``labels``, or a voxel (z, y, x) in it.
            split: pairs of sides: voxels, or ids of supervoxels, that one segment holds and that are of two neurons.
            undo: take back so many of the last edits, instead of making some.
            progress: show the chunks that are done.

        Raises ``ConfigError``, before anything is changed, for places without a segment, and for an edit that would
        change nothing.
        """
        from petaseg.sessions import driving, finish

        store_edits(self.run_directory, merge, split, undo)
        with driving(run_of(self.run_directory), progress=progress) as session:
            finish(session)
            return _result(session.run)

    def _volume(self, name: str) -> Volume:
        return open_volume(f"{self.run_directory}/{name}.zarr")

    def __fspath__(self) -> str:
        """The run directory, so that a result is named where a run is: ``petaseg.status(result)``."""
        return self.run_directory

    def __repr__(self) -> str:
        scores = "" if self.scores is None else f", {self.scores!r}"
        threshold = "" if self.threshold is None else f", threshold {self.threshold:g}"
        return f"<finished run {self.run_directory}{threshold}{scores}>"


def run(
    config: str | PathLike[str] | Mapping[str, Any],
    *,
    overwrite: bool = False,
    progress: bool = False,
    **tables: Any,
) -> Result:
    """Segment as ``petaseg run`` does: compute what is missing. Call it again after any interruption.

    Args:
        config: a run file, a run directory, or a dictionary of the same keys (docs/configuration.md), whose relative
            paths count from the working directory.
        overwrite: delete the results of another input that the run directory holds; else they are refused.
        progress: show the chunks that are done.
        tables: tables and keys that replace those of ``config``, such as ``execution={"workers": 4}``.

    Raises ``ConfigError``, ``VolumeError`` or ``ModelError`` before anything is computed; ``StageFailed`` if chunks
    cannot be computed, ``LeaseError`` if another driver works on this run.
    """
    from petaseg.sessions import driving, finish

    with driving(run_of(config, as_overrides(tables)), overwrite=overwrite, progress=progress) as session:
        finish(session)
        return _result(session.run)


def relabel(
    run: str | PathLike[str],
    *,
    threshold: float | None = None,
    min_size: int | None = None,
    progress: bool = False,
) -> Result:
    """Cut the merge tree of a finished run elsewhere and write the labels that change; it holds in later runs.

    Args:
        run: a run file, a run directory or the ``Result`` of a run.
        threshold: regions whose score is at least this are one neuron; voxels of a mask or objects are above it.
        min_size: pieces of fewer voxels follow their next merge; of a mask or objects, they are left out.
        progress: show the chunks that are done.

    Raises ``ConfigError`` if the run is not finished, or makes a class map, which has no threshold.
    """
    from petaseg.sessions import driving, finish
    from workflows.driver import check_complete

    keys = {"threshold": threshold, "min_size": min_size}
    given = {"segmentation": {key: value for key, value in keys.items() if value is not None}}
    opened = run_of(fspath(run), as_overrides(given))
    check_complete(opened, "tables")
    with driving(opened, progress=progress) as session:
        opened.remember()
        finish(session)
        return _result(session.run)


def status(run: str | PathLike[str]) -> RunStatus:
    """Chunks done and failed of every stage, speed, time left and cost, as ``petaseg status`` reads them from outside.

    run: a run file, a run directory (only that is read) or the ``Result`` of a run.
    """
    from pipeline.runs.status import RunWatch, open_outline, run_directory

    if run_directory(fspath(run)) is None:  # a run file, whose inputs are opened
        forget_opened()
    return RunWatch(open_outline(fspath(run))).read()


def _result(run: Run) -> Result:
    from pipeline.runs.report import write_report

    report = write_report(run)
    threshold = run.threshold if run.kind.can_be_cut else None
    return Result(run.url, threshold, report.scores, report.picture, run.kind.volume)
