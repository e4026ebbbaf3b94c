"""Variables of MATLAB 7.3 files, which are HDF5: which of them are volumes, and the order of their axes.

MATLAB stores the first index fastest, so that HDF5 lists the axes in reverse. Its images are (rows, columns, sections),
that is V(y, x, z): the dataset has the axes z, x, y.
"""

from __future__ import annotations

import h5py

from pipeline.errors import VolumeError

CLASS = "MATLAB_class"
"""The attribute in which MATLAB writes the class of a variable."""
NUMBERS = ("logical", "single", "double", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
"""The classes whose entries are numbers; logical ones are 0 and 1 in uint8."""


def is_from_matlab(dataset: h5py.Dataset) -> bool:
    """True if MATLAB wrote the variable with ``save``; ``h5write`` leaves no sign."""
    return CLASS in dataset.attrs


def matlab_axes(url: str, shape: tuple[int, ...]) -> list[str]:
    """The axes of a variable V(y, x, z), as HDF5 has them; ``VolumeError`` for more, which have no one order."""
    if len(shape) != 3:
        raise VolumeError(
            f"{url} is a MATLAB variable of size {' x '.join(map(str, reversed(shape)))}, and only V(y, x, z) has a "
            "usual order: name the axes in the reverse of MATLAB's order, by adding #axes=czxy for V(y, x, z, c) or "
            "#axes=zcxy for V(y, x, c, z)"
        )
    return list("zxy")


def refuse_matlab_objects(url: str, dataset: h5py.Dataset) -> None:
    """``VolumeError`` for a variable of characters, cells and other objects, which HDF5 holds as numbers."""
    name = dataset.attrs.get(CLASS, b"")
    kind = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    if kind and kind not in NUMBERS:
        raise VolumeError(
            f"{url} is a MATLAB variable of class {kind}; a volume is an array of numbers, or logical: convert it in "
            "MATLAB, for example with uint8(V), and save it with save(..., '-v7.3')"
        )
