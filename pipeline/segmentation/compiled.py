"""How the loops of this package are compiled: by numba, at their first call, and kept on disk.

numba itself is imported at the first call, too: most commands read results and compute nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

_IMPORTING = threading.RLock()


class Compiled:
    """A function that numba compiles when it is called, or when a function that calls it is compiled."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        update_wrapper(self, function)
        self._function, self._options, self._dispatcher = function, options, None

    @property
    def dispatcher(self) -> Any:
        """numba's object for the function; the function itself where numba is switched off."""
        if self._dispatcher is None:
            with _IMPORTING:  # of two threads that ask at once, both get the same
                from numba import njit

                self._dispatcher = self._dispatcher or njit(nogil=True, **self._options)(self._function)
        return self._dispatcher

    def __call__(self, *args: Any) -> Any:
        """The result of the compiled function."""
        return self.dispatcher(*args)

    @property
    def _numba_type_(self) -> Any:
        """By this name numba asks an object that a compiled function calls for its type."""
        return self.dispatcher._numba_type_


def kernel(function: Callable[..., Any]) -> Compiled:
    """Decorates what Python calls: its machine code is stored, with that of everything that it calls."""
    return Compiled(function, cache=True)


def part(function: Callable[..., Any]) -> Compiled:
    """Decorates what only kernels call: a wrapper that unpacks Python's arguments would take long to compile."""
    return Compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)
