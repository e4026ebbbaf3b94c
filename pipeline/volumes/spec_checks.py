"""Checks of a specification that hold for every format, and the differences between two specifications."""

from __future__ import annotations

import math

from pipeline.errors import VolumeError
from pipeline.volumes.base import VolumeSpec

FIELDS = ("bounds", "dtype", "channels", "storage_chunk", "storage_shard")
LARGEST_CHUNK = 2**31 - 1
"""Bytes of the largest stored chunk that every codec can hold."""
LARGEST_SHARD = 2**36
"""Bytes of the largest shard, which is held in memory as a whole."""

LARGEST_TYPE = 8
"""Bytes of the largest voxel; longer floats are another number on each kind of processor."""


def check_spec(url: str, spec: VolumeSpec) -> None:
    """Refuse a specification that no format can hold, with ``VolumeError``."""
    for problem in (_values_problem(spec), _extent_problem(spec)):
        if problem:
            raise VolumeError(f"{url} cannot be created: {problem}")


def differences(found: VolumeSpec, wanted: VolumeSpec) -> list[str]:
    """The differences in words; empty if the two specifications are equal."""
    result = [
        f"{name} is {getattr(found, name)}, not {getattr(wanted, name)}"
        for name in FIELDS
        if getattr(found, name) != getattr(wanted, name)
    ]
    sizes = zip(found.resolution_nm, wanted.resolution_nm, strict=True)
    if any(not math.isclose(a, b, rel_tol=1e-6) for a, b in sizes):
        result.append(f"resolution_nm is {found.resolution_nm}, not {wanted.resolution_nm}")
    return result


def _values_problem(spec: VolumeSpec) -> str | None:
    if spec.channels is not None and spec.channels < 2:
        return f"channels is {spec.channels}; one channel is a plain volume: use channels=None"
    if spec.dtype.kind not in "uif":
        return f"dtype is {spec.dtype}; voxels must be integers or floats: convert them"
    if spec.dtype.itemsize > LARGEST_TYPE:
        return f"dtype is {spec.dtype}; a voxel has at most 8 bytes: convert it, for example to float32"
    return None


def _extent_problem(spec: VolumeSpec) -> str | None:
    if spec.bounds.empty:
        return f"bounds are {spec.bounds}; there must be at least one voxel: correct the shape"
    if min(spec.storage_chunk) < 1:
        return f"storage_chunk is {spec.storage_chunk}; each side must be at least 1: correct it"
    if (chunk_bytes := spec.bytes_of(spec.storage_chunk)) > LARGEST_CHUNK:
        return (
            f"storage_chunk is {spec.storage_chunk}, {chunk_bytes:,} bytes of {spec.dtype}; codecs and memory hold "
            f"chunks of at most {LARGEST_CHUNK:,} bytes: make it smaller, for example 64,64,64"
        )
    if not all(math.isfinite(r) and r > 0 for r in spec.resolution_nm):
        return f"resolution_nm is {spec.resolution_nm}; all three must be positive: correct it"
    shard = spec.storage_shard
    if shard and (min(shard) < 1 or any(shard % spec.storage_chunk)):
        return f"storage_shard is {shard}; it must be a multiple of storage_chunk {spec.storage_chunk}: round it up"
    if (shard_bytes := spec.bytes_of(spec.write_unit)) > LARGEST_SHARD:
        return (
            f"storage_shard is {shard}, {shard_bytes:,} bytes of {spec.dtype}; a shard is held in memory as a "
            f"whole, so it has at most {LARGEST_SHARD:,} bytes: make it smaller"
        )
    return None
