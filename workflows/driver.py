"""The driver of a run: it opens a session and lets Luigi order the stages."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Literal, TypedDict, Unpack

from pipeline.errors import ConfigError, StageFailed
from pipeline.execution.runner import Listener
from pipeline.runs.run import Run
from pipeline.stages.blend_heads import BlendHeads
from pipeline.stages.landscape import refuse_below_tables
from workflows.central import check_scheduler, explained
from workflows.events.run_log import log_place
from workflows.interruption import saying, this_command
from workflows.session import Session, open_session
from workflows.terminal.progress import ChunkProgress
from workflows.terminal.tables import progress_console

Done = Literal["heads", "tables", "result"]
"""A part of a run that is complete: predicted heads, the tables from which a result is cut, or the result itself."""


class Order(TypedDict, total=False):
    """What may be asked of a run besides its file and overrides."""

    scheduler_url: str | None
    """A central Luigi scheduler; by default the chain is ordered in this process."""
    only_after: Done | None
    """The run's tables, or its result, must be complete already, so that nothing up to it is computed."""
    cluster: str | None
    """Run as the driver of workers on this cluster, a key of ``pipeline.clusters.CLUSTERS``."""
    overwrite: bool
    """Delete the results of another input that the run directory holds; else they are refused."""
    report: bool
    """Sum up, score and draw the finished run (``Session.report``), before the lease is released."""
    beside: str
    """The name of a second segmentation in the run directory, which is made instead of the first."""


def run_with_progress(
    config: str, overrides: Sequence[str] = (), *, quiet: bool = False, **order: Unpack[Order]
) -> Session:
    """``segment`` with one progress line for each stage on the terminal."""

    def announce(text: str) -> None:
        progress_console.print(text, highlight=False, markup=False, soft_wrap=True)

    with ChunkProgress(progress_console, disable=quiet) as progress:
        return segment(config, overrides, listener=progress, announce=announce, **order)


def segment(
    config: str,
    overrides: Sequence[str] = (),
    *,
    listener: Listener | None = None,
    announce: Callable[[str], None] = lambda _: None,
    **order: Unpack[Order],
) -> Session:
    """Drive a run to its end and return its closed session; raises the error of the first stage that fails.

    Args:
        config: run file or run directory.
        overrides: ``table.key=value`` texts.
        listener: called with the events of ``pipeline.execution.runner``.
        announce: called with the addresses of metrics and dashboard, if the run file sets them, and with a line for
            keys of the run file that nothing uses, unless ``only_after`` is given.
        order: see ``Order``.
    """
    scheduler_url, only_after = order.get("scheduler_url"), order.get("only_after")
    if scheduler_url is not None:
        check_scheduler(scheduler_url)

    def check(run: Run) -> None:
        if only_after is not None:
            check_complete(run, only_after)

    with open_session(
        config,
        overrides,
        listener=listener,
        announce=announce,
        cluster=order.get("cluster"),
        check=check,
        overwrite=order.get("overwrite", False),
        beside=order.get("beside", ""),
    ) as session:
        if only_after is None:
            for each in session.unused:
                session.announce(str(each))
        again = session.command if only_after is None else this_command()
        with saying(lambda: f"{session.progress}; go on with: {again}"):
            finished = _nothing_left(session, scheduler_url) or _build(session, config, overrides, scheduler_url)
            if order.get("report") and finished and session.failure is None:
                from pipeline.runs.report import write_report  # it imports matplotlib

                session.report = write_report(session.run)
    if session.failure is not None:
        raise session.failure
    if not finished:
        raise StageFailed(f"the chain did not finish; see {log_place(session.run)}, then: {session.command}")
    return session


def check_complete(run: Run, part: Done) -> None:
    """Raise ``ConfigError`` unless the run has this part, and it is complete under the present configuration."""
    stage = (BlendHeads if part == "heads" else run.cut.tables if part == "tables" else run.kind.result).name
    if not run.is_complete(run.stage(stage)):
        if run.landscape is not None and part == "tables":
            refuse_below_tables(run.landscape.head, run.config.segmentation)
        raise ConfigError(
            f"{run.source} has no finished {stage} under this configuration, and this command computes none; "
            f"first: `{run.command}`; or, if it was run with another --set, name its folder "
            f"{shlex.quote(run.url)} instead of a file"
        )


def _nothing_left(session: Session, scheduler_url: str | None) -> bool:
    """True if every stage is complete, so that nothing is to be ordered; a central scheduler shows it all the same."""
    return scheduler_url is None and all(session.is_complete(stage.name) for stage in session.run.stages)


def _build(session: Session, config: str, overrides: Sequence[str], scheduler_url: str | None) -> bool:
    """Let Luigi run the stages; False if one failed."""
    import luigi  # a finished run needs no order, and goes without it

    from workflows.segment import Segment

    task = Segment(config=config, set=tuple(overrides), session=session)
    luigi.configuration.get_config().set("core", "no_configure_logging", "true")
    central = {"scheduler_url": scheduler_url} if scheduler_url is not None else {"local_scheduler": True}
    with explained(scheduler_url):
        return bool(luigi.build([task], no_lock=True, **central))
