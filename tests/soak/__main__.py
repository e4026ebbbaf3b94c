"""Soak many runs in faults; see ``tests/soak/__init__.py``. The exit status is 1 if any of them breaks a promise."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.disks import can_mount
from tests.soak.plan import plan_of
from tests.soak.references import References
from tests.soak.run import BrokenPromiseError, soak


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each run, and the seed and the command of those that failed."""
    options = parse(arguments)
    logging.getLogger("petaseg").setLevel(logging.INFO)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        references = References(folder)
        print(f"references made in {time.monotonic() - began:.1f} s", flush=True)
        began = time.monotonic()
        seeds = range(options.seed, options.seed + options.runs)
        failed = [seed for seed in seeds if not one(seed, references, options.verbose)]
        seconds = (time.monotonic() - began) / len(seeds)
    print(f"{len(seeds) - len(failed)} of {len(seeds)} runs are byte-identical, {seconds:.2f} s each")
    for seed in failed:
        print(f"failed: seed {seed}; again with: python -m tests.soak --runs 1 --seed {seed} --verbose")
    return int(bool(failed))


def one(seed: int, references: References, verbose: bool) -> bool:
    """Soak one seed; False if it breaks a promise."""
    plan = plan_of(seed, can_mount=can_mount())
    began = time.monotonic()
    what = f"seed {seed}: {plan.flavour.name}, chunks {plan.chunk_shape}, {plan.execution['executor']}"
    try:
        endings = soak(plan, references, references.folder / str(seed), print if verbose else lambda text: None)
    except BrokenPromiseError as error:
        print(f"{what}: FAILED: {error}\n{plan}", flush=True)
        return False
    lives = ", ".join(f"{count} {ending}" for ending, count in Counter(endings).items())
    print(f"{what}, {lives}, {time.monotonic() - began:.1f} s", flush=True)
    return True


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="how many seeds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: %(default)s)")
    parser.add_argument("--folder", help="where runs are made; default: the system's temporary folder")
    parser.add_argument("--verbose", "-v", action="store_true", help="a line for every life")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
