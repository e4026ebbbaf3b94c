"""What plain attributes of zarr and HDF5 arrays state: the names of the axes, the size of a voxel and the first voxel.

    resolution_nm                    nanometres, z, y, x; petaseg's own, as is its ``offset`` in voxels, z, y, x
    voxel_size, resolution           in the order of the array's axes, with ``offset`` in the same unit
    units, unit                      of voxel_size and resolution, one for all or one for each; nanometres if left out,
                                     unless that would be less than an atom
    element_size_um                  micrometres, z, y, x (HDF5 files of ImageJ and ilastik)
    axes, axis_names, _ARRAY_DIMENSIONS, axistags     names: "zyx", ["z", "y", "x"], or tables with a name or key

Two attributes that say different things are refused with the option of the URL that replaces them, as is anything in
another form; neither is looked at if that option is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import ZERO, Vec
from pipeline.volumes.attribute_names import shown, text_in, texts
from pipeline.volumes.axes import Axes
from pipeline.volumes.coarser import same_size
from pipeline.volumes.placement import UNITS_NM, Resolution, Stated, tidy, unit_nm, whole_voxels

SIZES = ("voxel_size", "resolution")
"""The attributes of other programs that hold the size of a voxel."""
OWN_SIZES = ("resolution_nm", "element_size_um")
"""The attributes that hold it along z, y, x, in the unit that is in the name."""
UNITS = ("units", "unit")
"""The attributes that hold the unit of ``SIZES``."""
OTHER_OFFSETS = ("voxel_offset", "translation", "translate", "origin", "transform")
"""Attributes of other programs that place an array, in units that differ from program to program."""
OTHER_FACTORS = ("downsamplingFactors", "downsample_factors")
"""Attributes that say of which other voxels the size may be meant."""
FINEST_NM = 0.5
"""Voxels whose longest side is smaller are given in another unit, if none is written."""


def stated_by(
    url: str, attributes: Mapping[str, Any], axes: Axes, above: Mapping[str, Mapping[str, Any]] | None = None
) -> Stated:
    """Resolution and offset as attributes state them.

    above: the attributes of the groups above the array, by the names of the groups, the nearest first. They say what
        the array's own leave open; two groups with different sizes of a voxel are refused.
    """
    groups = above or {}

    def resolution() -> Resolution | None:
        own = _resolution(url, attributes, axes)
        return own if own is not None else _one_of_groups(url, groups, axes)

    return Stated(resolution, lambda: _offset(url, _merged([attributes, *groups.values()]), axes))


def stated_twice(url: str, image: Stated, array: Stated) -> Stated:
    """What the metadata of an image state, or, of the size of a voxel, the array's attributes.

    Raises ``VolumeError``, when it is read, if both state sizes that differ.
    """

    def resolution() -> Resolution | None:
        first, second = image.resolution(), array.resolution()
        if first is not None and second is not None and not same_size(first, second):
            raise VolumeError(
                f"{url} states several sizes of a voxel (multiscales say {list(first)} nm, the attributes of the array "
                f"{list(second)}): give the right one in nanometres by adding #resolution=z,y,x"
            )
        return second if first is None else first

    return Stated(resolution, image.offset)


def _one_of_groups(url: str, groups: Mapping[str, Mapping[str, Any]], axes: Axes) -> Resolution | None:
    """The size of a voxel that groups state; ``VolumeError`` if two state different ones."""
    sizes = {group: _resolution(url, attributes, axes) for group, attributes in groups.items()}
    found = {group: size for group, size in sizes.items() if size is not None}
    if len(set(found.values())) > 1:
        said = ", ".join(f"{group} states {list(size)}" for group, size in found.items())
        raise VolumeError(
            f"{url} lies in groups that state several sizes of a voxel ({said} nm z, y, x): give the right one by "
            "adding #resolution=z,y,x"
        )
    return next(iter(found.values()), None)


def _merged(levels: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The attributes of an array and of what is above it, the nearest first; the nearest sizes hold, with their offset.

    Sizes, units and the offset of a group farther away belong together, and are left out as one.
    """
    result: dict[str, Any] = {}
    sizes = (*SIZES, *OWN_SIZES)
    for level in levels:
        known = any(result.get(key) is not None for key in sizes)
        both = known and any(level.get(key) is not None for key in sizes)
        replaced = (*sizes, *UNITS, "offset") if both else ()
        result = {**{key: value for key, value in level.items() if key not in replaced}, **result}
    return result


def _resolution(url: str, attributes: Mapping[str, Any], axes: Axes) -> Resolution | None:
    """Nanometres along z, y, x; ``VolumeError`` if two attributes state different ones."""
    found: dict[str, Resolution] = {}
    _refuse_unread(url, attributes, OTHER_FACTORS, 1, "resolution")
    for key, factor in zip(OWN_SIZES, (1.0, 1e3), strict=True):
        if (own := _numbers(url, attributes, key, "resolution")) is not None:
            found[key] = tidy([side * factor for side in _three(url, key, own, "resolution")])
    for key in SIZES:
        if (other := _numbers(url, attributes, key, "resolution")) is not None:
            sides = zip(_in_order(url, key, other, axes, "resolution"), _factors(url, attributes, axes), strict=True)
            found[key] = tidy([side * factor for side, factor in sides])
            _refuse_no_unit(url, attributes, key, found[key])
    if len(set(found.values())) > 1:
        said = ", ".join(f"{key} = {shown(attributes[key])}" for key in found)
        raise VolumeError(
            f"{url} states several sizes of a voxel ({said}): give the right one in nanometres by adding "
            "#resolution=z,y,x"
        )
    return next(iter(found.values()), None)


def _offset(url: str, attributes: Mapping[str, Any], axes: Axes) -> Vec:
    """The first voxel: ``offset`` counts voxels beside ``resolution_nm``, else it has the unit of the voxel's size."""
    _refuse_unread(url, attributes, OTHER_OFFSETS, 0, "offset")
    offset = _numbers(url, attributes, "offset", "offset")
    if offset is None or not any(offset):
        return ZERO
    if attributes.get("resolution_nm") is not None:
        return whole_voxels(url, _three(url, "offset", offset, "offset"), (1.0, 1.0, 1.0))
    size = _other_size(url, attributes, axes)
    if size is None:
        raise VolumeError(
            f"{url} has the attribute offset = {offset}, but no size of a voxel (resolution_nm, voxel_size or "
            "resolution) that says what it counts: give the first voxel by adding #offset=z,y,x"
        )
    return whole_voxels(url, _in_order(url, "offset", offset, axes, "offset"), size)


def _refuse_unread(url: str, attributes: Mapping[str, Any], keys: Sequence[str], neutral: float, option: str) -> None:
    """``VolumeError`` for an attribute that would change the place, unless all that it holds is ``neutral``."""
    for key in keys:
        value = attributes.get(key)
        if value is not None and not _is_all(value, neutral):
            raise VolumeError(
                f"{url} has the attribute {key} = {shown(value)}, which has no one meaning: give what it says by "
                f"adding #{option}=z,y,x"
            )


def _is_all(value: Any, number: float) -> bool:
    try:
        return bool((np.asarray(value) == number).all())
    except (ValueError, TypeError, OverflowError, RecursionError):
        return False


def _refuse_no_unit(url: str, attributes: Mapping[str, Any], key: str, found: Resolution) -> None:
    """``VolumeError`` for a size without a unit that is none in nanometres: micrometres, most likely."""
    if 0 < max(found) < FINEST_NM and all(attributes.get(unit) is None for unit in UNITS):
        raise VolumeError(
            f"{url} has the attribute {key} = {shown(attributes[key])} without a unit; in nanometres that is less than "
            "an atom, so it may be micrometres: give the size of a voxel in nanometres by adding #resolution=z,y,x"
        )


def _other_size(url: str, attributes: Mapping[str, Any], axes: Axes) -> tuple[float, float, float] | None:
    """The size of a voxel along z, y, x as another program wrote it, in the unit that it wrote."""
    for key in SIZES:
        if (found := _numbers(url, attributes, key, "resolution")) is not None:
            return _in_order(url, key, found, axes, "resolution")
    return None


def _factors(url: str, attributes: Mapping[str, Any], axes: Axes) -> tuple[float, float, float]:
    """Nanometres of the units along z, y, x; ``VolumeError`` if two attributes state different ones."""
    found = {key: _unit_of(url, key, attributes[key], axes) for key in UNITS if attributes.get(key) is not None}
    if len(set(found.values())) > 1:
        said = ", ".join(f"{key} = {shown(attributes[key])}" for key in found)
        raise VolumeError(
            f"{url} states several units ({said}): give the size of a voxel in nanometres by adding #resolution=z,y,x"
        )
    return next(iter(found.values()), (1.0, 1.0, 1.0))


def _unit_of(url: str, key: str, value: Any, axes: Axes) -> tuple[float, float, float]:
    """Nanometres along z, y, x of a unit for all axes, or of one for each; ``VolumeError`` if one is not known."""
    one = isinstance(value, str | bytes)
    names = [text_in(value)] * 3 if one else texts(value) if isinstance(value, list | tuple | np.ndarray) else None
    known = [factor for factor in map(unit_nm, names or []) if factor is not None]
    if not names or len(known) < len(names):
        raise VolumeError(
            f"{url} has the attribute {key} = {shown(value)}; known units are {', '.join(UNITS_NM)}: give the size of "
            "a voxel in nanometres by adding #resolution=z,y,x"
        )
    return (known[0],) * 3 if one else _in_order(url, key, known, axes, "resolution")


def _in_order(url: str, key: str, values: list[float], axes: Axes, option: str) -> tuple[float, float, float]:
    """Values for z, y, x out of one for each axis, or one for each of the three axes of space."""
    if len(values) == len(axes.names):
        return axes.spatial(values)
    order = [name for name in axes.names if name in "zyx"]
    z, y, x = (_three(url, key, values, option)[order.index(name)] for name in "zyx")
    return z, y, x


def _three(url: str, key: str, values: list[float], option: str) -> list[float]:
    if len(values) != 3:
        raise _refusal(url, key, values, option)
    return values


def _numbers(url: str, attributes: Mapping[str, Any], key: str, option: str) -> list[float] | None:
    """The finite numbers of an attribute; ``None`` if it is missing or null, ``VolumeError`` if it is anything else."""
    value = attributes.get(key)
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise _refusal(url, key, value, option) from None
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise _refusal(url, key, value, option)
    return [float(number) for number in array]


def _refusal(url: str, key: str, value: Any, option: str) -> VolumeError:
    return VolumeError(
        f"{url} has the attribute {key} = {shown(value)}; it must be three finite numbers: give them by adding "
        f"#{option}=z,y,x"
    )
