"""``petaseg verify``: compare stored chunks with their checksums, and with chunks that are computed again."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.errors import ConfigError
from workflows.commands.options import RunArgument, SetOption
from workflows.terminal.starting import starting

SAMPLE = 5
"""Chunks of each stage that are computed again if nobody says how many."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg verify runs/first --sample 20")
    def verify(
        run: RunArgument = "run.yaml",
        sample: Annotated[
            int | None, typer.Option(min=0, help="Chunks of each stage to compute again; 5 if left out, 0 for none.")
        ] = None,
        all_: Annotated[bool, typer.Option("--all", help="Compute every chunk again.")] = False,
        stage: Annotated[list[str] | None, typer.Option(help="Only this stage; repeatable.")] = None,
        seed: Annotated[int, typer.Option(min=0, help="Which sample.")] = 0,
        repair: Annotated[
            bool,
            typer.Option(
                "--repair",
                help="Forget chunks that differ, so that the next run computes them; delete strays, altered tables.",
            ),
        ] = False,
        set_: SetOption = None,
    ) -> None:
        """Compare every stored chunk with its recorded checksum, and compute a sample of them again.

        Exit status 1 if a chunk differs, is missing, or cannot be read, if something is stored that no chunk writes, if
        a published table is missing or differs from what the chunks give, if the run is not finished, or if the network
        computes other bytes on this machine than in the run, so that its chunks cannot be computed again here.
        """
        if all_ and sample is not None:
            raise ConfigError("--all and --sample are both given, and all chunks are no sample: leave one of them out")
        starting(f"opening {run}")
        from pipeline.errors import counted
        from pipeline.runs import verify as proof
        from pipeline.runs.run import Run
        from pipeline.runs.status import read_status
        from workflows.terminal.tables import bars, outdated_note, say, verify_table

        opened = Run.open(run, set_ or ())
        with bars() as advance:
            wanted = None if all_ else SAMPLE if sample is None else sample
            proofs = list(proof.verify_run(opened, wanted, stages=stage, seed=seed, on_progress=advance))
        findings = verify_table(opened, proofs)
        outdated_note(read_status(opened))
        stray = [p.stage for p in proofs if p.strays]
        altered = {p.stage: p.altered for p in proofs if p.altered}
        if repair and (findings or stray or altered):
            proof.repair(opened, findings, stray, altered)
            if findings:
                say(f"{counted(len(findings), 'chunk')} will be computed again by: {opened.command}")
            if stray:
                say(f"stray objects of {', '.join(stray)} were removed")
            if altered:
                say(f"published files of {', '.join(altered)} will be written again by: {opened.command}")
        elif findings or stray or altered:
            say(f"mend with: {opened.hint('verify', '--repair')}, then {opened.command}")
        if not all(p.proven for p in proofs):
            raise typer.Exit(1)
