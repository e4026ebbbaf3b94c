"""A copy of the source in which mutations are applied and tests are run; the checkout itself is never touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("petaseg", "pipeline", "workflows", "tests", "pyproject.toml")
TESTS_FAILED = 1
"""Exit status of pytest if tests ran and some failed; others mean that none ran: a wrong name, an error of syntax."""
LONGEST = 120
"""Seconds after which a test counts as hanging."""
OPTIONS = (
    *("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "mutations"),
    *("-W", "ignore:overflow encountered in scalar:RuntimeWarning"),  # hashes overflow on purpose
)
ENVIRONMENT = {"NUMBA_DISABLE_JIT": "1"}
"""Kernels are interpreted: a compiler would need half a minute for each change, and might take a kernel from its cache
that calls a changed one."""


class MutationError(Exception):
    """A mutation cannot be applied; the message says why."""


@dataclass(frozen=True)
class Mutation:
    """One change of the source that breaks one promise."""

    name: str
    promise: str
    """What no longer holds, as a sentence that is true of the unchanged source."""
    file: str
    text: str
    """Occurs exactly once in the file."""
    replacement: str
    test: str
    """Node id of the test that passes without the change and fails with it."""

    def applied_to(self, source: str) -> str:
        """The changed source of the file; ``MutationError`` unless the text occurs once."""
        count = source.count(self.text)
        if count != 1:
            raise MutationError(
                f"{self.name}: {self.text!r} occurs {count} times in {self.file}; it must occur once: "
                "correct it in tests/mutations/table.py"
            )
        return source.replace(self.text, self.replacement)


@dataclass(frozen=True)
class Tree:
    """A copy of the source."""

    folder: Path

    @classmethod
    def copy(cls, root: Path, folder: Path) -> Tree:
        """Copy the packages and the settings of pytest, with their byte code, which saves a second a test."""
        for part in PARTS:
            source, target = root / part, folder / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.nbi", "*.nbc"))
            else:
                shutil.copy2(source, target)
        return cls(folder)

    def check(self, tests: Sequence[str], *, keep_byte_code: bool = False) -> subprocess.CompletedProcess[str]:
        """Run tests in a process of their own; its status is ``TESTS_FAILED`` if one of them fails."""
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(self.folder)}
        if not keep_byte_code:
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        command = [sys.executable, "-m", "pytest", *OPTIONS, *tests]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": LONGEST}
        return subprocess.run(command, cwd=self.folder, env=environment, **options)

    def check_mutated(self, mutation: Mutation) -> subprocess.CompletedProcess[str]:
        """Run the test of a mutation in the changed source, and change it back."""
        path = self.folder / mutation.file
        before, times = path.read_bytes(), path.stat()
        try:
            path.write_text(mutation.applied_to(before.decode()))
            os.utime(path, (0, 0))  # no byte code has this time, so that Python compiles the file
            return self.check([mutation.test])
        finally:
            path.write_bytes(before)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
