"""How the loops of this package are compiled: by numba, at their first call, and kept on disk."""

from __future__ import annotations

from numba import njit

kernel = njit(nogil=True, cache=True)
"""For functions that Python calls: their machine code is stored, with everything that they call."""

part = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For functions that only kernels call: no wrapper that unpacks Python's arguments, which takes long to compile."""
