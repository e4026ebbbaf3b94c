"""The plan of a run on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from pipeline.runs.plan import Plan, StagePlan
from pipeline.runs.run import Run
from workflows.terminal.tables import console, human_bytes, human_seconds, say


def plan_table(run: Run, plan: Plan) -> None:
    """Print chunks, bytes, patches, memory, time and money of a run."""
    table = Table("stage", "chunks", "done", "writes (uncompressed)", "s / chunk", "worker time left", "time left")
    for stage in plan.stages:
        table.add_row(*_row(stage))
    console.print(table)
    for name, text in _lines(run, plan):
        say(f"{name:<18}{text}")
    for shortage in plan.shortages:
        needed, present = human_bytes(shortage.needed), human_bytes(shortage.present)
        say(f"not enough memory {shortage.where} needs {needed} and has {present}: {shortage.remedy}", "yellow")


def _row(stage: StagePlan) -> Iterator[str]:
    yield from (stage.name, f"{stage.chunks:,}", f"{stage.done:,}")
    yield human_bytes(stage.bytes_uncompressed) if stage.bytes_uncompressed else "small tables"
    yield f"{stage.levels[0].seconds or 0.0:.2f}" if stage.measured else ""
    yield human_seconds(stage.worker_seconds) if stage.measured else "not measured"
    yield "not known" if stage.seconds is None else human_seconds(stage.seconds)


def _lines(run: Run, plan: Plan) -> Iterator[tuple[str, str]]:
    yield "voxels", f"{plan.voxels:,} ({run.layout.roi})"
    if plan.patches:
        yield "patches", f"{plan.patches:,}, each computed once; {plan.patch_voxels:.2f} times the voxels, by overlap"
    if run.fastest is not None:
        yield "precision", str(run.fastest)
    memory = plan.sample.memory
    growth = human_bytes(max(memory.growth.values()))
    yield "memory a worker", f"{human_bytes(memory.at_rest)}, and {growth} more for each chunk at a time (sample chunk)"
    yield "once a worker", f"{human_seconds(plan.sample.once)} to load and measure the network and to load kernels"
    yield "time", _time(plan)
    if plan.money is not None:
        yield "money", f"about {plan.money:,.3g} {plan.prices.currency}".rstrip() + " for the chunks that are not done"
    yield "measured on", f"chunk {plan.sample.box}; next: {run.command}"


def _time(plan: Plan) -> str:
    where = "this machine" if plan.cluster is None else plan.cluster
    if plan.seconds is None:
        total = human_seconds(sum(stage.worker_seconds for stage in plan.stages))
        return f"{total} of one worker; the scheduler in execution.scheduler decides how many there are"
    slots = sorted({stage.slots or 0 for stage in plan.stages})
    others = ", ".join(stage.name for stage in plan.stages if not stage.measured)
    behind = f", without {others}" if others else ""
    at_a_time = "1 chunk" if slots == [1] else f"{' or '.join(map(str, slots))} chunks"
    return f"about {human_seconds(plan.seconds)} with {at_a_time} at a time on {where}{behind}"
