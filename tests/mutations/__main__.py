"""Apply mutations to a copy of the source and name the test that kills each.

Exit status 1 if a mutation survives its test, if a test fails without its mutation, or if a text is not found.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutations.table import MUTATIONS
from tests.mutations.tree import LONGEST, ROOT, TESTS_FAILED, Mutation, MutationError, Tree

EXAMPLES = """examples:
  python -m tests.mutations                                 every mutation: a minute or two
  python -m tests.mutations --list                          names, promises and tests
  python -m tests.mutations --only tie-of-scores --verbose  one, with what its test says
"""


def main(arguments: Sequence[str] | None = None, mutations: Sequence[Mutation] = MUTATIONS, root: Path = ROOT) -> int:
    """Print a line for each mutation, and the sum."""
    options = parse(arguments)
    chosen = [mutation for mutation in mutations if options.only in (None, mutation.name)]
    if not chosen:
        print(f"no mutation is called {options.only}; --list names all {len(mutations)}")
        return 1
    if options.list:
        print("\n\n".join(map(described, chosen)))
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="petaseg-mutations-") as name:
        tree = Tree.copy(root, Path(name))
        if not all_pass(tree, chosen, options.verbose):
            return 1
        killed = [apply(tree, number, len(chosen), mutation, options.verbose) for number, mutation in enumerate(chosen)]
    print(f"{sum(killed)} of {len(chosen)} mutations are killed, {time.monotonic() - began:.0f} s")
    return int(not all(killed))


def all_pass(tree: Tree, mutations: Sequence[Mutation], verbose: bool) -> bool:
    """Run all tests once without any mutation; name those that fail."""
    tests = sorted({mutation.test for mutation in mutations})
    print(f"{len(tests)} tests without a mutation ...", flush=True)
    found = tree.check(tests, keep_byte_code=True)
    if found.returncode == 0:
        return True
    failing = [test for test in tests if tree.check([test]).returncode != 0]
    print(f"these tests fail without any mutation, mend them first: {', '.join(failing) or tests}")
    if verbose:
        print(found.stdout)
    return False


def apply(tree: Tree, number: int, total: int, mutation: Mutation, verbose: bool) -> bool:
    """Apply one mutation and print its line; True if its test kills it."""
    began = time.monotonic()
    verdict, output = judge(tree, mutation)
    seconds = time.monotonic() - began
    print(f"{number + 1:3d}/{total} {verdict:9s} {seconds:5.1f} s  {mutation.name}: {mutation.promise}", flush=True)
    print(f"{' ' * 27}{mutation.test}", flush=True)
    if verbose or verdict != "killed":
        print(output, flush=True)
    return verdict == "killed"


def judge(tree: Tree, mutation: Mutation) -> tuple[str, str]:
    """A word about a mutation, and what its test has printed."""
    try:
        found = tree.check_mutated(mutation)
    except MutationError as error:
        return "NOT FOUND", str(error)
    except subprocess.TimeoutExpired:
        return "HANGS", f"its test takes more than {LONGEST} s; choose a test that fails"
    if found.returncode == TESTS_FAILED:
        return "killed", found.stdout
    return ("SURVIVED" if found.returncode == 0 else "BROKEN"), found.stdout


def described(mutation: Mutation) -> str:
    """Name, promise and test."""
    return f"{mutation.name}\n    {mutation.promise}\n    {mutation.file}\n    {mutation.test}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutations",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="NAME", help="this mutation alone")
    parser.add_argument("--list", action="store_true", help="print the mutations and apply none")
    parser.add_argument("--verbose", "-v", action="store_true", help="print what each test says")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
