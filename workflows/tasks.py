"""One Luigi task for every stage, and one target: a stage is complete when its ledger says so."""

from __future__ import annotations

from typing import ClassVar

import luigi

from workflows.session import Session, session_of
from workflows.targets import StageTarget


class RunTask(luigi.Task):
    """A task of one run."""

    task_namespace = "petaseg"

    config = luigi.Parameter(description="run file or run directory")
    set = luigi.ListParameter(default=(), description='overrides, like ["inference.batch_size=4"]')

    @property
    def session(self) -> Session:
        """The run with its workers, opened once in this process."""
        return session_of(self.config, tuple(self.set))

    def has_stage(self, name: str) -> bool:
        """True if this run has the stage."""
        return any(stage.name == name for stage in self.session.run.stages)


class StageTask(RunTask):
    """Runs the stage that it names."""

    stage_name: ClassVar[str]

    def output(self) -> StageTarget:
        """The stage's ledger."""
        return StageTarget(self.session, self.stage_name)

    def complete(self) -> bool:
        """True if this stage and all before it are done: Luigi by itself would not look behind a finished stage."""
        return super().complete() and all(task.complete() for task in luigi.task.flatten(self.requires()))

    def run(self) -> None:
        """Run every chunk that is not done; raises ``StageFailed`` if one cannot be."""
        self.session.run_stage(self.stage_name)
