"""A worker of a run, in a process of its own: ``python -m tests.stages.worker <run file> <chunk> [override ...]``.

It computes and writes one chunk of the first stage and prints, as JSON, what it measured and what became of the chunk.
"""

from __future__ import annotations

import json
import sys

from pipeline.execution.base import attempt
from pipeline.runs.run import Run
from pipeline.stages import opened


def main(file: str, number: str, *overrides: str) -> None:
    """Compute one chunk; an error is printed and not raised, as a worker reports it."""
    stage = Run.open(file, overrides).stages[0]
    stage.prepare()
    outcome = attempt(stage.run_chunk, list(stage.grids()[0])[int(number)])
    environment = opened.environment(stage.model_card, stage.options, stage.patch_shape)
    said = {
        "digest": environment.digest,
        "checksum": outcome.result.checksum if outcome.result else None,
        "error": outcome.error,
        "retriable": outcome.retriable,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
