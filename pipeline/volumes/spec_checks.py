"""What no format can hold, and how two specifications differ."""

from __future__ import annotations

import math

from pipeline.errors import VolumeError
from pipeline.volumes.base import VolumeSpec

FIELDS = ("bounds", "dtype", "channels", "storage_chunk", "storage_shard")


def check_spec(url: str, spec: VolumeSpec) -> None:
    """Refuse what no format can hold, with ``VolumeError``."""
    for problem in (_values_problem(spec), _extent_problem(spec)):
        if problem:
            raise VolumeError(f"{url} cannot be created: {problem}")


def differences(found: VolumeSpec, wanted: VolumeSpec) -> list[str]:
    """What differs, in words; empty if the two specifications are the same."""
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
    return None


def _extent_problem(spec: VolumeSpec) -> str | None:
    if spec.bounds.empty:
        return f"bounds are {spec.bounds}; there must be at least one voxel: correct the shape"
    if min(spec.storage_chunk) < 1:
        return f"storage_chunk is {spec.storage_chunk}; each side must be at least 1: correct it"
    if not all(math.isfinite(r) and r > 0 for r in spec.resolution_nm):
        return f"resolution_nm is {spec.resolution_nm}; all three must be positive: correct it"
    shard = spec.storage_shard
    if shard and (min(shard) < 1 or any(shard % spec.storage_chunk)):
        return f"storage_shard is {shard}; it must be a multiple of storage_chunk {spec.storage_chunk}: round it up"
    return None
