"""``petaseg plan``: the work and cost of a run, before anything runs."""

from __future__ import annotations

from typing import Annotated

import typer

from workflows.commands.options import RunArgument, SetOption
from workflows.commands.submit import OnOption
from workflows.terminal.starting import starting


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg plan run.yaml --set chunk_shape=[128,256,256]")
    def plan(
        run: RunArgument = "run.yaml",
        set_: SetOption = None,
        on: OnOption = None,
        keep: Annotated[
            bool, typer.Option("--keep", help="Store the measured times in the run directory, for petaseg status.")
        ] = False,
    ) -> None:
        """Check the run file, take one sample chunk through the chain, and print chunks, bytes, memory, time and money.

        With --on, or cluster.kind in the run file, the cluster's workers are counted, else those of this machine. Money
        is printed if cluster.prices has prices, also by --set cluster.prices.cpu_hour=0.05.
        """
        starting(f"opening {run}")
        from pipeline.runs.cost import write_rates
        from pipeline.runs.directory import claim_directory
        from pipeline.runs.launch import cluster_of
        from pipeline.runs.plan import make_plan
        from pipeline.runs.run import Run
        from pipeline.runs.unused import unused_keys
        from workflows.terminal.plan import plan_table
        from workflows.terminal.tables import progress_console, say

        opened = Run.open(run, set_ or ())
        cluster = cluster_of(opened, on).name if on or opened.config.cluster.kind else None
        unused = unused_keys(opened, cluster)
        if keep:
            opened.check_directory()
        opened.check_model()
        with progress_console.status("measuring a sample chunk ...") as status:
            opened = opened.decided(keep=False)
            result = make_plan(opened, lambda stage: status.update(f"measuring {stage} ..."), cluster)
        if keep:
            claim_directory(opened.outline, opened.inputs)
            write_rates(opened.store, result.seconds_per_voxel)
        plan_table(opened, result)
        for each in unused:
            say(str(each))
