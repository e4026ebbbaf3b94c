"""What the info file of a precomputed layer must say of a scale, which cloud-volume rounds or takes as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import VolumeError
from pipeline.volumes.location import Location
from pipeline.volumes.placement import FARTHEST

ENCODINGS = (
    "raw",
    "jpeg",
    "png",
    "jxl",
    "compressed_segmentation",
    "compresso",
    "crackle",
    "fpzip",
    "kempressed",
    "zfpc",
    "npz",
)
"""The encodings that cloud-volume knows."""
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
"""The types that the format can hold (Neuroglancer specification of precomputed volumes)."""


def check_scale(location: Location, info: Mapping[str, Any]) -> None:
    """Raise ``VolumeError`` unless the scale of the location's mip has whole sizes and a known encoding."""
    scale = _scale(location, info)
    _whole(location, scale, "size", scale.get("size"), 1)
    _whole(location, scale, "voxel_offset", scale.get("voxel_offset", [0, 0, 0]), -FARTHEST)
    sides = scale.get("chunk_sizes")
    for side in sides if isinstance(sides, list) and sides else [sides]:
        _whole(location, scale, "chunk_sizes", side, 1)
    if (encoding := scale.get("encoding")) not in ENCODINGS:
        raise _refusal(location, scale, "encoding", encoding, f"known are {', '.join(ENCODINGS)}")
    if (dtype := info.get("data_type")) not in DTYPES:
        raise _refusal(location, info, "data_type", dtype, f"the format has {', '.join(DTYPES)}")
    if not _is_whole(channels := info.get("num_channels"), 1):
        raise _refusal(location, info, "num_channels", channels, "it must be a whole number of at least 1")


def _scale(location: Location, info: Mapping[str, Any]) -> Mapping[str, Any]:
    scales = info.get("scales")
    if not isinstance(scales, list) or not scales or not all(isinstance(scale, dict) for scale in scales):
        kind = str(info.get("type", info.get("@type")))[:80]
        raise VolumeError(
            f"{location.url} has an info file without scales (its type is {kind!r}), so it is no image and no "
            "segmentation: name a layer that has voxels"
        )
    if location.mip >= len(scales):
        raise VolumeError(f"{location.url} has no mip {location.mip}; it has {len(scales)}, 0 to {len(scales) - 1}")
    scale: Mapping[str, Any] = scales[location.mip]
    return scale


def _whole(location: Location, scale: Mapping[str, Any], key: str, values: Any, least: int) -> None:
    """Refuse anything but three whole numbers from ``least``."""
    good = isinstance(values, list) and len(values) == 3 and all(_is_whole(value, least) for value in values)
    if not good:
        rule = "three whole numbers x, y, z" + (f" of at least {least}" if least > 0 else "")
        raise _refusal(location, scale, key, values, f"it must be {rule}")


def _is_whole(value: Any, least: int) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and least <= value <= FARTHEST and value == int(value)


def _refusal(location: Location, scale: Mapping[str, Any], key: str, value: Any, rule: str) -> VolumeError:
    where = f"whose scale {str(scale['key'])[:80]!r}" if "key" in scale else "that"
    return VolumeError(f"{location.url} has an info file {where} says {key} = {str(value)[:80]}; {rule}: correct it")
