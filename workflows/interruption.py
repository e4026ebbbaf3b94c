"""Ctrl-C and TERM, heard by a thread of their own, so that they are answered at once, whatever the main thread does.

    Ctrl-C       with chunks running: they are finished and recorded, then the command ends; otherwise it ends at once
    Ctrl-C again running chunks are abandoned: they are not recorded, and the next run computes them
    TERM         like Ctrl-C; chunks that are not finished in ``TERM_SECONDS`` are abandoned. Clusters send it twice.

Python runs handlers of signals in the main thread, between two of its own instructions; a kernel may keep that thread
for minutes. So a thread reads the numbers of signals from a pipe that the interpreter fills, and interrupts the main
thread when it is to end.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import NoReturn

from pipeline.errors import counted
from pipeline.execution.stopping import Gate, Interrupted, Stop

logger = logging.getLogger("petaseg.session")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TERM_SECONDS = 15.0
"""Less than the 30 s that Kubernetes and SLURM leave between TERM and KILL, since workers must be ended after it."""
LAST_SECONDS = 1.0
"""After a second Ctrl-C the main thread has so long to notice it; a kernel may keep it longer."""
CLOSING_SECONDS = 10.0
"""After it has noticed it, it has so long to end workers, for example the jobs of a cluster."""
GO_ON = "the same command goes on where it stopped"
Progress = Callable[[int, int], None]
STOP = Stop()
"""The request to stop the run that this process drives."""


class Interruption:
    """Listens to signals while the context lasts.

    say: prints a line while the command runs.
    """

    def __init__(self, stop: Stop, say: Callable[[str], None]) -> None:
        self.stop, self.say = stop, say
        self.received: list[int] = []
        """The signals so far."""
        self._poked = False
        self._raise = False
        self._noticed = threading.Event()

    def __enter__(self) -> Interruption:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._before = {number: signal.signal(number, self._in_main_thread) for number in SIGNALS}
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._hook_before, sys.unraisablehook = sys.unraisablehook, self._not_raised
        threading.Thread(target=self._listen, name="petaseg-signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        sys.unraisablehook = self._hook_before
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._writing)

    @property
    def status(self) -> int:
        """The exit status of a command that a signal has ended."""
        return 128 + self.received[0]

    def _listen(self) -> None:
        while heard := os.read(self._reading, 1):
            if heard[0] in SIGNALS:
                self._hear(heard[0])
        os.close(self._reading)

    def _hear(self, number: int) -> None:
        if self._poked:  # it is our own
            self._poked = False
            return
        self.received.append(number)
        if number == signal.SIGTERM:
            if self.received.count(number) == 1:
                self._end_in_time(first=len(self.received) == 1)
        elif self.received.count(number) == 1 and len(self.received) == 1:
            self._finish("", "; press Ctrl-C again to abandon them")
        else:
            self._abandon()

    def _end_in_time(self, *, first: bool) -> None:
        """After TERM: finish what runs, but not for ever."""
        running = self._finish("asked to end; ", f"; after {TERM_SECONDS:.0f} s they are abandoned") if first else True
        if running:
            timer = threading.Timer(TERM_SECONDS, self._give_up)
            timer.daemon = True
            timer.start()

    def _finish(self, before: str, after: str) -> bool:
        """Let running chunks be finished, or interrupt the main thread if there are none to wait for."""
        running = self.stop.request()
        if running is None:
            self._interrupt()
            threading.Thread(target=self._say_if_stuck, name="petaseg-end", daemon=True).start()
            return False
        after = after.replace("them", "it").replace("they are", "it is") if running == 1 else after
        text = f"finishing {counted(running, self.stop.unit)}{after}"
        self._tell(before + (text if running else "ending; no chunk is running"))
        return True

    def _tell(self, text: str) -> None:
        logger.info("%s", text)
        self.say(text)

    def _give_up(self) -> None:
        self.stop.abandon()
        self._interrupt()

    def _abandon(self) -> None:
        """End without waiting for what runs; a third Ctrl-C does not wait for the end of workers either."""
        if self.stop.abandoned:
            self._exit()
        self._give_up()
        threading.Thread(target=self._exit_if_stuck, name="petaseg-end", daemon=True).start()

    def _say_if_stuck(self) -> None:
        if not self._noticed.wait(LAST_SECONDS):
            self._tell("ending after the present step; press Ctrl-C again to end at once")

    def _exit_if_stuck(self) -> None:
        if self._noticed.wait(LAST_SECONDS):
            self._noticed.clear()
            self._noticed.wait(CLOSING_SECONDS)
        self._exit()

    def _exit(self) -> None:
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{show_cursor}\npetaseg: abandoned; {GO_ON}\n")
        sys.stderr.flush()
        os._exit(self.status)

    def _interrupt(self) -> None:
        """Raise ``KeyboardInterrupt`` in the main thread, also if it waits for something."""
        self._noticed.clear()
        self._raise = self._poked = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _in_main_thread(self, number: int, frame: FrameType | None) -> None:
        if self._raise:
            self._raise = False
            self._noticed.set()
            raise KeyboardInterrupt

    def _not_raised(self, lost: sys.UnraisableHookArgs) -> None:
        """Raise the interruption once more where Python has swallowed it, as in a destructor, and print nothing."""
        if issubclass(lost.exc_type, KeyboardInterrupt):
            self._interrupt()
        else:
            self._hook_before(lost)


@contextmanager
def saying(words: Callable[[], str]) -> Iterator[None]:
    """If what is in here is interrupted, the command's last line has these words."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise (error if error.args else Interrupted(words())) from None


@contextmanager
def undivided(unit: str, words: Callable[[], str]) -> Iterator[None]:
    """Finish what is in here in spite of Ctrl-C, as one item called ``unit``; the command's last line then has these
    words. A second Ctrl-C ends it half done.
    """
    cut_off = f"the {unit} was cut off; what it has queued by then is among your jobs, and not recorded"
    with STOP.gate(unit) as gate, saying(lambda: cut_off), gate.passing():
        yield
    if STOP.requested:
        raise Interrupted(words())


@contextmanager
def between_steps(advance: Progress, unit: str, words: Callable[[int, int], str]) -> Iterator[Progress]:
    """Progress of work that Ctrl-C interrupts between two steps, once the first has begun.

    advance: called with (steps done, all steps) before each step and after the last. unit: what a step is called.
    words: made of the same two numbers, what the command's last line says.
    """
    at = (0, 0)
    with ExitStack() as stack:
        gates: list[Gate] = []

        def told(done: int, total: int) -> None:
            nonlocal at
            at = (done, total)
            advance(done, total)
            if not gates:
                gates.append(stack.enter_context(STOP.gate(unit)))
                stack.enter_context(gates[0].passing())
            elif gates[0].closed and done < total:
                raise Interrupted(words(*at))

        with saying(lambda: words(*at)):
            yield told


def this_command(without: str = "") -> str:
    """The command that is running, as it can be pasted into a shell; an option may be left out."""
    return shlex.join(["petaseg", *(word for word in sys.argv[1:] if word != without)])


def last_words(error: BaseException | None, otherwise: str = GO_ON) -> str:
    """The words of the interruption that has led to an error; without any, ``otherwise``."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) and error.args:
            return str(error)
        error = error.__cause__ or error.__context__
    return otherwise


def leave(status: int) -> NoReturn:
    """End this process now: abandoned threads are not waited for, and nothing is said of tasks that were cut off."""
    for child in multiprocessing.active_children():
        child.kill()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
