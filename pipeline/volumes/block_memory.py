"""The memory of an ingest: about three blocks, each of which holds whole chunks or shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from pipeline.errors import VolumeError
from pipeline.geometry import Vec
from pipeline.volumes.base import VolumeSpec

BLOCKS = 3
"""Blocks that are in memory at a time: as read, as converted or transposed, and as encoded."""


@contextmanager
def enough_memory(url: str, spec: VolumeSpec, block: Vec) -> Iterator[None]:
    """Copy blocks of this shape (z, y, x); ``VolumeError`` at once, or later, if the machine cannot hold them.

    Blocks are never smaller than a chunk or a shard, so only these can be made smaller.
    """
    shape = block.minimum(spec.bounds.shape)
    needed, present = BLOCKS * spec.bytes_of(shape), int(psutil.virtual_memory().total)
    if needed > present:
        raise _refusal(url, spec, shape, f"this machine has {_gigabytes(present)}")
    try:
        yield
    except MemoryError as error:
        raise _refusal(url, spec, shape, f"this machine has no more to give ({error})") from error


def _refusal(url: str, spec: VolumeSpec, shape: Vec, why: str) -> VolumeError:
    smaller = "--shard, such as --shard 128,128,128" if spec.storage_shard else "--chunk, such as --chunk 64,64,64"
    return VolumeError(
        f"{url} is written in blocks of {' x '.join(map(str, shape))} voxels of {spec.dtype}, and about {BLOCKS} of "
        f"them need {_gigabytes(BLOCKS * spec.bytes_of(shape))} of memory, but {why}: choose a smaller {smaller}, "
        "end other programs, or take another machine"
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2g} GB"
