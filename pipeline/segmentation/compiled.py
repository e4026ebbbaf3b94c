"""How the loops of this package are compiled: by numba, at their first call, and kept on disk.

numba itself is imported at the first call, too: most commands read results and compute nothing. A container image
carries the machine code of the day it was built (``SHIPPED``); numba reads only from a folder to which it can write, so
the code is copied there first.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Any

SHIPPED = "PETASEG_KERNELS"
"""The environment variable that names the folder of an image with machine code; ``NUMBA_CACHE_DIR`` names numba's."""
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
                unpack_shipped()
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


def unpack_shipped() -> None:
    """Copy the machine code of an image to numba's folder, unless that exists; what cannot be copied is compiled."""
    shipped, folder = os.environ.get(SHIPPED), os.environ.get("NUMBA_CACHE_DIR")
    if not shipped or not folder or os.path.exists(folder):
        return
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Path(folder).parent, ignore_cleanup_errors=True) as partial:
        copy = shutil.copytree(shipped, Path(partial) / "kernels")
        try:
            copy.rename(folder)  # all or nothing: a second process may look at any time
        except OSError:
            if not os.path.exists(folder):  # no other process was faster
                raise
