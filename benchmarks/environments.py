"""Which processors compute the same bytes: one network under every limit of instructions that this machine can play.

    python benchmarks/environments.py [--model fib25-tiny] [--patch 32] [--threads 1 2] [--precision float32 bfloat16]

Each row is a process of its own, since libraries choose their instructions once. It measures what a worker of a run
measures (``Predictor.digest``). Equal letters are equal bytes. A limit that this processor does not reach changes
nothing: what its row says is what the processor itself computes. Exit status 1 if float32 depends on the number of
threads or on anything from AVX2 on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from string import ascii_uppercase

LIMITS = {
    "all instructions": {},
    "oneDNN: AVX512_CORE_AMX": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"},
    "oneDNN: AVX512_CORE_BF16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "oneDNN: AVX512_CORE": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "oneDNN: AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "torch: avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN: AVX2, torch: avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN: SSE41": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "torch: default": {"ATEN_CPU_CAPABILITY": "default"},
}
"""What a row is called, and the environment variables that make it."""
BELOW_AVX2 = ("oneDNN: SSE41", "torch: default")
"""Rows of which nothing is claimed."""


@dataclass(frozen=True)
class Row:
    """What one process computed."""

    limit: str
    precision: str
    threads: int
    digest: str
    seconds: float
    """For one patch, the first of its process: the price of a measurement."""


def main() -> int:
    """Print a table for each precision."""
    arguments = parse()
    if arguments.limit:
        print(*measured(arguments.model, arguments.patch, arguments.precision[0], arguments.threads[0]))
        return 0
    print(f"{arguments.model}, a patch of {arguments.patch}^3; {this_machine()}")
    return max(show(arguments, precision) for precision in arguments.precision)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fib25-tiny", help="name of a bundled model, or a card")
    parser.add_argument("--patch", type=int, default=32, help="side of the patch in voxels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--limit", help="measure in this process only; the name of a row")
    return parser.parse_args()


def show(arguments: argparse.Namespace, precision: str) -> int:
    """Print the table of one precision; 1 if float32 breaks the claim."""
    rows = [run(arguments, limit, precision, threads) for limit in LIMITS for threads in arguments.threads]
    letters = dict(zip(dict.fromkeys(row.digest for row in rows), ascii_uppercase, strict=False))
    print(f"\n| {precision} | " + " | ".join(f"threads: {threads}" for threads in arguments.threads) + " |")
    print("|---" * (1 + len(arguments.threads)) + "|")
    for limit in LIMITS:
        cells = [f"{letters[row.digest]} ({row.seconds:.2g} s)" for row in rows if row.limit == limit]
        print(f"| {limit} | {' | '.join(cells)} |")
    claimed = {row.digest for row in rows if row.limit not in BELOW_AVX2}
    return int(precision == "float32" and len(claimed) > 1)


def run(arguments: argparse.Namespace, limit: str, precision: str, threads: int) -> Row:
    """One row, measured in a process of its own."""
    command = [sys.executable, __file__, "--limit", limit, "--model", arguments.model, "--patch", str(arguments.patch)]
    command += ["--precision", precision, "--threads", str(threads)]
    done = subprocess.run(command, env=os.environ | LIMITS[limit], stdout=subprocess.PIPE, text=True, check=True)
    digest, seconds = done.stdout.split()
    return Row(limit, precision, threads, digest, float(seconds))


def measured(model: str, patch: int, precision: str, threads: int) -> tuple[str, float]:
    """Digest and seconds of this process."""
    from pipeline.geometry import Vec
    from pipeline.inference.predictor import PredictOptions, Predictor
    from pipeline.models.spec import load_card, load_model

    options = PredictOptions(device="cpu", precision=precision, threads=threads)  # type: ignore[arg-type]
    predictor = Predictor(load_model(load_card(model)), options)
    began = time.perf_counter()
    digest = predictor.digest(Vec(patch, patch, patch))
    return digest, time.perf_counter() - began


def this_machine() -> str:
    """This machine, in words."""
    from pipeline.inference.options import PredictOptions
    from pipeline.inference.runtime import environment_names

    return ", ".join(f"{name} {value}" for name, value in environment_names(PredictOptions(device="cpu")).items())


if __name__ == "__main__":
    sys.exit(main())
