"""Forked drivers that do what ``petaseg run`` does, and processes that kill themselves at a storage operation."""

from __future__ import annotations

import faulthandler
import itertools
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import PetasegError
from pipeline.storage import local, objects
from pipeline.storage.local import LocalBackend
from tests.soak.plan import Death, Life
from workflows.driver import segment

DONE, REFUSED, BUG = 0, 1, 70
"""Exit statuses: complete; an error raised on purpose; any other error."""


class Transcript:
    """The output of processes, in a file.

    It gets there through a pipe: a process whose files may not grow must still be able to say so.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("ab") as file:
            self._copy = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)

    def fileno(self) -> int:
        """The descriptor to which processes write."""
        assert self._copy.stdin is not None
        return self._copy.stdin.fileno()

    def end(self, length: int) -> str:
        """The last characters of the output."""
        return self.path.read_text(errors="replace")[-length:] or "nothing was printed"

    def close(self) -> None:
        """Close the pipe, after the last process has ended."""
        assert self._copy.stdin is not None
        self._copy.stdin.close()
        self._copy.wait()


def fork(function: Callable[[], None], log: Transcript) -> int:
    """Run a function in a copy of this process; returns the process number."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = BUG
    try:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        faulthandler.enable()  # so that an aborted driver prints where it was
        function()
        status = DONE
    except PetasegError as error:
        status = REFUSED
        print(f"{type(error).__name__}: {error}", flush=True)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # in every case: the rest of the program belongs to the parent


def drive(file: Path, life: Life, overrides: tuple[str, ...]) -> None:
    """Do what ``petaseg run`` does in a process of its own, except for drawing pictures."""
    if life.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (life.file_limit, resource.RLIM_INFINITY))
    if life.death is not None:
        die_at(life.death)
    segment(str(file), overrides)


def die_at(death: Death) -> None:
    """Let this process kill itself at its nth change of the disk."""
    numbers = itertools.count(1)
    put, put_if, append = LocalBackend.put, LocalBackend.put_if, objects.append_bytes

    def fatal(change: Callable[..., Any], halfway: Callable[..., None], *arguments: Any) -> Any:
        if next(numbers) != death.operation:
            return change(*arguments)
        if death.how == "middle":
            halfway(*arguments)
        elif death.how == "after":
            change(*arguments)
        return die()

    def put_halfway(backend: LocalBackend, key: str, data: bytes, durable: bool) -> None:
        local.temporary_file = die_within(local.temporary_file)
        put(backend, key, data, durable)

    def put_if_halfway(backend: LocalBackend, key: str, data: bytes, version: str | None) -> None:
        local.temporary_file = die_within(local.temporary_file)
        put_if(backend, key, data, version)

    def append_halfway(path: Path, data: bytes) -> None:
        append(path, data[: len(data) // 2])

    LocalBackend.put = lambda *arguments: fatal(put, put_halfway, *arguments)  # type: ignore[method-assign]
    LocalBackend.put_if = lambda *arguments: fatal(put_if, put_if_halfway, *arguments)  # type: ignore[method-assign]
    objects.append_bytes = lambda path, data: fatal(append, append_halfway, path, data)


def die_within(context: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a context manager so that the process dies when its body would begin."""

    @contextmanager
    def fatal(*arguments: Any, **options: Any) -> Iterator[None]:
        with context(*arguments, **options):
            die()
            yield

    return fatal


def die() -> None:
    """Kill this process; nothing is flushed, closed or released."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def kill(pid: int) -> None:
    """Kill a child, if it still runs, and collect its status."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def status_of(pid: int) -> int | None:
    """The exit status of a child, negative for a signal; ``None`` while it lives."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None
