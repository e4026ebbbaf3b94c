"""Python imports this at its start where this folder is in PYTHONPATH: chunks then wait until a test lets them go.

A chunk that begins leaves a file in ``$PETASEG_TEST_GATE/begun``, and goes on when it can take a file away from
``$PETASEG_TEST_GATE/passes``, or when there is a file ``$PETASEG_TEST_GATE/open``.
"""

import functools
import os
import time
from pathlib import Path

from pipeline.stages.base import Stage

GATE = Path(os.environ["PETASEG_TEST_GATE"])
run_chunk = Stage.run_chunk


def may_pass() -> bool:
    """True if the gate is open, or if this process gets a pass."""
    for found in (GATE / "passes").iterdir():
        try:
            found.unlink()
            return True
        except FileNotFoundError:  # another chunk was faster
            continue
    return (GATE / "open").exists()


@functools.wraps(run_chunk)
def run_when_allowed(stage, chunk, *arguments, **options):
    """Wait for a pass, then run the chunk."""
    (GATE / "begun" / f"{stage.name}-{chunk.name}-{os.getpid()}").touch()
    while not may_pass():
        time.sleep(0.02)
    return run_chunk(stage, chunk, *arguments, **options)


Stage.run_chunk = run_when_allowed
