"""Python imports this at its start where this folder is in PYTHONPATH: chunks and blocks then wait for a test.

A chunk of a run, or a block of an ingest, that begins leaves a file in ``$PETASEG_TEST_GATE/begun``. It goes on when it
can take a file away from ``$PETASEG_TEST_GATE/passes``, or when there is a file ``$PETASEG_TEST_GATE/open``. Blocks
are small, so that a small volume has many.
"""

import functools
import os
import time
from pathlib import Path

from pipeline.stages.base import Stage
from workflows import interruption

GATE = Path(os.environ["PETASEG_TEST_GATE"])
BLOCK_BYTES = 1000
interruption.TERM_SECONDS = 600.0  # no test depends on how fast the machine is


def may_pass() -> bool:
    """True if the gate is open, or if this process gets a pass."""
    for found in (GATE / "passes").iterdir():
        try:
            found.unlink()
            return True
        except FileNotFoundError:  # another was faster
            continue
    return (GATE / "open").exists()


def waiting(function, name):
    """The same function, which leaves a file and waits for a pass first."""

    @functools.wraps(function)
    def wait(*arguments, **options):
        (GATE / "begun" / f"{name(*arguments)}-{os.getpid()}-{time.monotonic_ns()}").touch()
        while not may_pass():
            time.sleep(0.02)
        return function(*arguments, **options)

    return wait


Stage.run_chunk = waiting(Stage.run_chunk, lambda stage, chunk, *_: f"{stage.name}-{chunk.name}")

if (GATE / "blocks").exists():
    from pipeline.volumes import ingest
    from pipeline.volumes.checked import CheckedVolume

    block_shape = ingest.block_shape
    ingest.block_shape = lambda spec, _: block_shape(spec, BLOCK_BYTES)
    CheckedVolume.write = waiting(CheckedVolume.write, lambda volume, box, *_: f"block-{box.start}")
