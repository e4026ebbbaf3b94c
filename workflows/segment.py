"""A run as Luigi sees it: one task a stage, made from the list in ``pipeline.runs.chain``.

    luigi --module workflows.segment Segment --config run.yaml --local-scheduler

does the same as ``petaseg run run.yaml``. Luigi decides only the order: what a stage does is in ``pipeline.stages``,
what of it is done is in the ledger.
"""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from functools import cache, cached_property
from types import new_class
from typing import Any, ClassVar, cast

import luigi
from luigi.parameter import ParameterVisibility

from pipeline.stages.chain_stage import ChainStage
from workflows.session import Session, open_session


class SessionParameter(luigi.Parameter):
    """The session of a task: an object of this process, so it is no part of the task's name and never written."""

    def __init__(self) -> None:
        super().__init__(default=None, significant=False, visibility=ParameterVisibility.PRIVATE)  # type: ignore[arg-type]

    def serialize(self, value: Any) -> str:
        """Nothing: no other process could use it."""
        return ""

    def _warn_on_wrong_param_type(self, name: str, value: Any) -> None:
        """Luigi expects text here."""


class RunTask(luigi.Task):
    """A task of one run."""

    task_namespace = "petaseg"

    config: Any = luigi.Parameter(description="run file or run directory")
    set: Any = luigi.ListParameter(default=(), description='overrides, like ["inference.batch_size=4"]')
    session: Any = SessionParameter()


class StageTask(RunTask):
    """Runs one stage."""

    kind: ClassVar[type[ChainStage]]

    def requires(self) -> list[luigi.Task]:
        """The stages that this one reads, as far as the run has them."""
        stages = self.session.run.stages
        return [self.clone(stage_task(stage.__class__)) for stage in stages if stage.name in self.kind.reads]

    def complete(self) -> bool:
        """True if this stage and all before it are done: Luigi by itself would not look behind a finished stage."""
        return self.session.is_complete(self.kind.name) and all(task.complete() for task in self.requires())

    def run(self) -> None:
        """Compute every chunk that is not done; raises ``StageFailed`` if one cannot be."""
        self.session.run_stage(self.kind.name)


@cache
def stage_task(kind: type[ChainStage]) -> type[StageTask]:
    """The Luigi task of a stage, under the stage's own name."""
    attributes = {"kind": kind, "__doc__": kind.__doc__, "__module__": __name__}
    made = new_class(kind.__name__, (StageTask,), exec_body=lambda space: space.update(attributes))
    return cast(type[StageTask], made)


class Segment(RunTask, luigi.WrapperTask):
    """A whole run: from the image to neurons, and to scores if there is ground truth."""

    task_namespace = ""  # so that the documented command needs no prefix

    def requires(self) -> list[luigi.Task]:
        """All stages of the run."""
        session = self.session or self._own_session
        kinds = [stage_task(stage.__class__) for stage in session.run.stages]
        return [kind(config=self.config, set=self.set, session=session) for kind in kinds]

    @cached_property
    def _own_session(self) -> Session:
        """The session of a process that Luigi's own command has started; it is closed when that process ends."""
        stack = ExitStack()
        atexit.register(stack.close)
        return stack.enter_context(open_session(self.config, tuple(self.set)))
