"""``petaseg add``: what a finished run can have besides, such as coarser levels for viewers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from workflows.commands.options import RunArgument, SetOption
from workflows.terminal.starting import starting


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def add(
        run: RunArgument,
        name: Annotated[
            str,
            typer.Argument(metavar="NAME", help="A table of the run file: downsample, meshes, measures or organelles."),
        ],
        set_: SetOption = None,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    ) -> None:
        """Add something to a finished run, and compute it: downsample makes coarser levels of its volumes, for viewers.

        meshes makes meshes of neurons; measures tables of sizes, places, surfaces and contacts; organelles a table of
        which objects of other volumes, such as nuclei, lie in which neuron.

        Nothing that leads to the result is computed. What is added holds in every later command of this run; the run
        file itself is not changed, and wins where it has such a table.
        """
        if not quiet:
            starting(f"opening {run}")
        from pipeline.errors import counted
        from workflows.driver import run_with_progress
        from workflows.terminal.tables import say

        overrides, lines = remember(run, name, set_ or ())
        session = run_with_progress(run, overrides, quiet=quiet, only_after="result")
        if not quiet:
            computed = ", ".join(session.seconds) or "nothing, since all of it was there"
            say(f"computed {computed}; {counted(len(session.run.stages), 'stage')} of {session.run.url} are complete")
            say(lines)


EPILOG = """Examples:

petaseg add runs/first downsample

petaseg add runs/first measures

petaseg add run.yaml downsample --set downsample.levels=3

petaseg add run.yaml organelles --set organelles.volumes.nuclei=runs/nuclei/objects.zarr
"""


def remember(run: str, name: str, sets: Sequence[str]) -> tuple[list[str], str]:
    """Record in the run directory what holds from now on.

    Returns the overrides with which the run is continued, and what is said to the user about the record.

    Raises ``ConfigError`` for an unknown name, for a run without a finished result, and where the run file says
    something else, and ``LeaseError`` if another driver works on the run.
    """
    from pipeline.runs.added import as_lines, with_table
    from pipeline.runs.lease import Lease
    from pipeline.runs.run import Run
    from workflows.driver import check_complete

    before = Run.open(run)
    added, others = with_table(before.store, name, sets)
    if _says(run, name, before.url, changed=len(others) < len(sets)):
        check_complete(Run.open(run, others), "result")
        return others, f"{run} says {name} itself"
    opened = Run.open(run, [*others, f"{name}={json.dumps(added.tables[name])}"])
    opened.check_directory()
    check_complete(opened, "result")
    added = added.checked(name, opened.config)
    with Lease(opened.store, seconds=opened.config.execution.lease_seconds):
        added.store_in(opened.store)
    lines = f"{opened.url}/added.json says it from now on; a run file says it with:\n{as_lines(added, name)}"
    return list(opened.overrides), lines


def _says(run: str, name: str, url: str, *, changed: bool) -> bool:
    """True if the user's run file has a table of this name; ``ConfigError`` if it says something else than asked."""
    from pipeline.errors import ConfigError
    from pipeline.runs.added import has_null, tables_of_file
    from pipeline.runs.run import is_within_run, run_file
    from pipeline.storage import absolute

    store, key = run_file(run)
    if is_within_run(absolute(f"{store.url}/{key}", "."), url) or name not in tables_of_file(store.get(key), run):
        return False
    if changed or has_null(store.get(key), run, name):
        raise ConfigError(f"{run} says {name} itself, and the run file wins: change it there, or remove it there")
    return True
