"""petaseg in Python: an array goes in, labels come out.

    import petaseg

    image = petaseg.open("image.zarr")[:, 0:256, 0:256]  # numpy, uint8 (z, y, x); only these voxels are read
    labels = petaseg.segment(image, model="fib25", resolution=(8, 8, 8))  # uint64 (z, y, x), 0 = no neuron
    print(petaseg.evaluate(labels, petaseg.open("truth.zarr")[:, 0:256, 0:256]))

All arrays are z, y, x, channels first; resolutions are nanometres z, y, x. Functions of arrays compute the bytes that
``petaseg run`` computes for the same voxels. Wrong arguments end in a ``PetasegError`` before anything is computed.

Importing this package loads no network and no plots; each function loads what it needs.
"""

from __future__ import annotations

from petaseg.arrays import agglomerate, predict, segment
from petaseg.pictures import Picture, draw
from petaseg.runs import Result, relabel, run, status
from petaseg.scores import evaluate
from petaseg.volumes import create, open
from pipeline import __version__
from pipeline.errors import PetasegError
from pipeline.geometry import BoundingBox
from pipeline.volumes import Volume

__all__ = [
    "BoundingBox",
    "PetasegError",
    "Picture",
    "Result",
    "Volume",
    "__version__",
    "agglomerate",
    "create",
    "draw",
    "evaluate",
    "open",
    "predict",
    "relabel",
    "run",
    "segment",
    "status",
]
