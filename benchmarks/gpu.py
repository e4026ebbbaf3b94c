"""What the networks do on the GPU that is there: speed, share of its peak, bytes, compilation, a short training.

    python benchmarks/gpu.py [--minutes 8] [--output gpu] [--networks plain_unet/base ...] [--measures usual bytes ...]

The most important figures come first, and each is written to OUTPUT.json and OUTPUT.md as soon as it is measured; what
no time is left for is listed too. docs/benchmarks.md says what the rows mean. Wall-clock time on a GPU; CPU time of one
thread and small sizes on a CPU, so that the script can be tried there: ``--device cpu --minutes 1``.

Exit status 1 if a measurement failed, if repeats give other bytes, or if the loss of a training does not fall.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import torch
from on_device.bench import Bench
from on_device.rows import Row, Table

from pipeline.errors import PetasegError
from pipeline.inference.options import PredictOptions
from pipeline.inference.runtime import environment_names

NETWORKS = (
    *("plain_unet/base", "plain_unet/tiny", "fib25-tiny", "plain_gamma/base", "plain_gamma/tiny"),
    *("plain_unet/base_thick", "plain_unet/tiny_thick", "plain_gamma/base_thick", "plain_gamma/tiny_thick"),
    *("gamma_net_3d/tiny", "gamma_net_3d/base", "synthetic-tiny"),
)
"""The most important first."""
FIRST = 4
"""Bytes and compilation are measured of the first networks only."""
MEASURES = ("usual", "bytes", "training", "variants", "compilation")
MINUTES = {"cuda": 8.0, "cpu": 1.0}
LATE = "not measured: no time was left"
SHORT, LONG = 10.0, 60.0
"""Seconds that must be left for a training or another process, and for a compilation."""


@dataclass(frozen=True)
class Step:
    """One thing to measure."""

    measure: str
    network: str
    run: Callable[[], Iterator[Row]]
    seconds: float
    """So much time must be left."""


def main() -> int:
    """Measure until everything is measured or the time is over."""
    arguments = parse()
    try:
        device = PredictOptions(device=arguments.device).resolved_device()
    except PetasegError as error:
        sys.exit(f"benchmarks/gpu.py: {error}; --device cpu tries the script")
    minutes = MINUTES[device] if arguments.minutes is None else arguments.minutes
    bench = Bench(device, minutes, __file__)
    if arguments.digest_of:
        print(bench.digest(arguments.digest_of))
        return 0
    table = Table(environment_names(bench.options()), arguments.output)
    for step in (Step("peak", "", bench.peaks, -inf), *steps(bench, arguments.networks)):
        if step.measure in ("peak", *arguments.measures):
            for row in rows_of(step, bench):
                table.add(row)
    return int(any(row.wrong for row in table.rows))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--minutes", type=float, help="time for all of it; default: 8 on a GPU, 1 on a CPU")
    parser.add_argument("--output", help="write the table to OUTPUT.json and OUTPUT.md")
    parser.add_argument(
        "--networks", nargs="+", default=NETWORKS, help="named sizes and bundled models, in their order"
    )
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=MEASURES, help="what is measured")
    parser.add_argument("--digest-of", help=argparse.SUPPRESS)  # what the script runs in another process
    return parser.parse_args()


def steps(bench: Bench, networks: Sequence[str]) -> Iterator[Step]:
    """All measurements, the most important first."""
    first, others, trained = networks[:FIRST], networks[FIRST:], [each for each in networks if "/" in each][:2]
    yield from (Step("usual", each, partial(bench.usual, each), 0) for each in networks)
    yield from (Step("bytes", each, partial(bench.bytes, each), SHORT) for each in first)
    yield from (Step("training", each, partial(bench.training, each), SHORT) for each in trained)
    yield from variants(bench, first)
    yield from (Step("compilation", each, partial(bench.compiled, each), LONG) for each in first)
    yield from variants(bench, others)


def variants(bench: Bench, networks: Sequence[str]) -> Iterator[Step]:
    """A step for each setting of each network."""
    for each in networks:
        for patch, changes in bench.variants(each):
            yield Step("variants", each, partial(bench.variant, each, patch, changes), 0)


def rows_of(step: Step, bench: Bench) -> Iterator[Row]:
    """The rows of a step; one that says why, where it cannot be measured. The next step is measured in any case."""
    if bench.left < step.seconds:
        yield Row(step.measure, step.network, note=LATE)
        return
    try:
        yield from step.run()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        yield Row(step.measure, step.network, note="not measured: it needs more memory than this GPU has")
    except subprocess.TimeoutExpired:
        yield Row(step.measure, step.network, note=LATE)
    except (PetasegError, RuntimeError, subprocess.SubprocessError) as error:
        reason = " ".join(str(error).split())[:300]
        yield Row(step.measure, step.network, note=f"failed: {reason}", wrong=True)


if __name__ == "__main__":
    sys.exit(main())
