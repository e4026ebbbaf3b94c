"""Simulate many runs; see ``tests/simulation/__init__.py``. Exit status 1 at the first seed that breaks a promise."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.simulation.judge import BrokenPromiseError
from tests.simulation.run import simulate

STEP = 500


def main(arguments: Sequence[str] | None = None) -> int:
    """Print progress, and at a failure the seed and the command that replays it."""
    options = parse(arguments)
    logging.basicConfig(format="%(name)s: %(message)s")
    logging.getLogger("petaseg").setLevel(logging.INFO if options.verbose else logging.CRITICAL)
    first, stop = (int(part) for part in options.seeds.split(":"))
    counts: Counter[str] = Counter()
    began = time.process_time()
    for seed in range(first, stop):
        try:
            counts += simulate(seed, verbose=options.verbose)
        except BrokenPromiseError as error:
            print(story_of(seed, error))
            return 1
        done = seed + 1 - first
        if done % STEP == 0 or seed + 1 == stop:
            print(f"{done:6d} of {stop - first} runs hold, {time.process_time() - began:6.1f} s", flush=True)
    print("\n".join(f"{count:9d}  {kind}" for kind, count in counts.most_common()))
    return 0


def story_of(seed: int, error: BaseException) -> str:
    """The broken promise, and the command that replays it."""
    return f"seed {seed}: {error}\nreplay: python -m tests.simulation --seeds {seed}:{seed + 1} --verbose"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0:10000", help="first:stop (default: %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="tell what happens, step by step")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
