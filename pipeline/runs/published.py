"""Products that readers see only when all of them are stored, such as the levels of a pyramid.

A driver settles this before it computes anything: what is complete is published (the driver before may have died just
before it did so), and what is not is withdrawn, since the voxels of which it was made may change now.
"""

from __future__ import annotations

from pipeline.runs.chain import STAGES
from pipeline.runs.run import Run


def settle(run: Run) -> None:
    """Publish or withdraw the products of each stage that publishes some; under the lease."""
    stages = {stage.name: stage for stage in run.stages}
    for kind in (kind for kind in STAGES if kind.publishes):
        if run.beside and kind.name not in run.kind.own:
            continue
        stage = stages.get(kind.name)
        if stage is not None and run.is_complete(stage):
            stage.publish()
        else:
            kind.withdraw(run.setup)
