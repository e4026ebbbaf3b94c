"""How a run is stopped: items that run are finished, no other begins, and after a second request nothing is waited for.

a signal's thread                        the driver's main thread

Stop.request()  --- closes --->  Gate    an executor asks it before each item; the items inside are finished
Stop.abandon()  --- marks  --->          the executor waits for no item any more
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """The user or the cluster has stopped this command; the text says what is done and how to go on."""


class Gate:
    """What items pass when they begin. After it is closed none begins, and those inside are finished."""

    def __init__(self) -> None:
        self.closed = False
        self.abandoned = False
        """True if nobody waits for the items inside any more."""
        self.close_elsewhere: Callable[[], int] = lambda: 0
        """Closes the gates of other processes; returns the number of items inside them."""
        self._inside = 0
        self._lock = threading.Lock()

    @contextmanager
    def passing(self) -> Iterator[bool]:
        """Hold one item inside; False, with nothing inside, if the gate is closed."""
        with self._lock:
            open_ = not self.closed
            self._inside += open_
        try:
            yield open_
        finally:
            with self._lock:
                self._inside -= open_

    def close(self) -> int:
        """Let no other item begin, here and elsewhere; returns the number of items that are being finished."""
        with self._lock:
            self.closed = True
            inside = self._inside
        return inside + self.close_elsewhere()


class Stop:
    """The request to stop what this process drives. The thread that hears signals makes it, at any time."""

    def __init__(self) -> None:
        self.requested = False
        self.abandoned = False
        self.unit = "chunk"
        """What the items of the present gate are."""
        self._gate: Gate | None = None
        self._lock = threading.RLock()

    @contextmanager
    def gate(self, unit: str = "chunk") -> Iterator[Gate]:
        """A gate for the items that run within this context; ``Interrupted`` if the request came before."""
        gate = Gate()
        with self._lock:
            if self.requested:
                raise Interrupted
            self._gate, self.unit = gate, unit
        try:
            yield gate
        finally:
            with self._lock:
                self._gate = None

    def request(self) -> int | None:
        """Ask to stop; returns the number of items that are being finished, ``None`` if there is no gate to close."""
        with self._lock:
            self.requested = True
            gate = self._gate
        return None if gate is None else gate.close()

    def abandon(self) -> None:
        """Let nobody wait for the items that run."""
        with self._lock:
            self.requested = self.abandoned = True
            if self._gate is not None:
                self._gate.closed = self._gate.abandoned = True
