"""What plain attributes of zarr and HDF5 arrays state: the names of the axes, the size of a voxel and the first voxel.

    resolution_nm                    nanometres, z, y, x; petaseg's own, as is its ``offset`` in voxels, z, y, x
    voxel_size, resolution           in the order of the array's axes, with ``offset`` in the same unit
    units, unit                      of voxel_size and resolution, one for all or one for each; nanometres if left out
    element_size_um                  micrometres, z, y, x (HDF5 files of ImageJ and ilastik)
    axes, axis_names, _ARRAY_DIMENSIONS, axistags     names: "zyx", ["z", "y", "x"], or tables with a name or key

Two attributes that say different things are refused with the option of the URL that replaces them, as is anything in
another form; neither is looked at if that option is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import ZERO, Vec
from pipeline.volumes.axes import Axes, letters
from pipeline.volumes.placement import UNITS_NM, Resolution, Stated, tidy, whole_voxels

SIZES = ("voxel_size", "resolution")
"""The attributes of other programs that hold the size of a voxel."""
OWN_SIZES = ("resolution_nm", "element_size_um")
"""The attributes that hold it along z, y, x, in the unit that is in the name."""
UNITS = ("units", "unit")
"""The attributes that hold the unit of ``SIZES``."""
NAMES = ("axes", "axis_names", "_ARRAY_DIMENSIONS", "axistags")
"""The attributes that may name the axes."""


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


def axis_names(url: str, attributes: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> list[str] | None:
    """The names of the axes; ``None`` if nothing has them.

    more: names that are written elsewhere than in attributes, by the word for the place.

    Raises ``VolumeError`` if one has another form, or if two differ.
    """
    written = {**(more or {}), **{key: attributes[key] for key in NAMES if attributes.get(key) is not None}}
    found = {key: names_in(url, key, value) for key, value in written.items()}
    if len({letters(names) for names in found.values()}) > 1:
        said = ", ".join(f"{key} = {', '.join(names)}" for key, names in found.items())
        raise VolumeError(
            f"{url} states its axes in two ways ({said}): say the order by adding #axes=zyx or #axes=czyx"
        )
    return next(iter(found.values()), None)


def names_above(url: str, above: Mapping[str, Mapping[str, Any]], ndim: int) -> list[str] | None:
    """The names of the axes that groups above an array state; those of another length belong to other arrays.

    Raises ``VolumeError`` if one has another form, or if two groups differ.
    """
    stated = {f"the axes of {group}": axis_names(url, attributes) for group, attributes in above.items()}
    return axis_names(url, {}, {place: names for place, names in stated.items() if names and len(names) == ndim})


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


def names_in(url: str, key: str, value: Any) -> list[str]:
    """The names of axes that an attribute holds; ``VolumeError`` if it has another form."""
    names = _names(value)
    if not names:
        raise VolumeError(
            f"{url} has the attribute {key} = {_shown(value)}, which is no list of names of axes: say the order by "
            "adding #axes=zyx or #axes=czyx"
        )
    return names


def _names(value: Any) -> list[str] | None:
    """Names out of a text of letters, JSON, a list of texts, or tables with a name."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        text = value.strip("\x00 \t\n")
        parsed = _json(text) if text[:1] in ("{", "[") else None
        words = re.split(r"[\s,;/]+", text.partition("(")[0].strip())  # a remark in brackets may follow
        return (words if len(words) > 1 else list(words[0])) if parsed is None else _names(parsed)
    if isinstance(value, Mapping):
        return _names(value.get("axes"))
    if not isinstance(value, list | tuple):
        return None
    names = [_name(each) for each in value]
    return names if all(names) else None  # type: ignore[return-value]


def _name(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("name", value.get("key"))
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value.strip("\x00 ") or None if isinstance(value, str) else None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _resolution(url: str, attributes: Mapping[str, Any], axes: Axes) -> Resolution | None:
    """Nanometres along z, y, x; ``VolumeError`` if two attributes state different ones."""
    found: dict[str, Resolution] = {}
    for key, factor in zip(OWN_SIZES, (1.0, 1e3), strict=True):
        if (own := _numbers(url, attributes, key, "resolution")) is not None:
            found[key] = tidy([side * factor for side in _three(url, key, own, "resolution")])
    for key in SIZES:
        if (other := _numbers(url, attributes, key, "resolution")) is not None:
            sides = zip(_in_order(url, key, other, axes, "resolution"), _factors(url, attributes, axes), strict=True)
            found[key] = tidy([side * factor for side, factor in sides])
    if len(set(found.values())) > 1:
        said = ", ".join(f"{key} = {_shown(attributes[key])}" for key in found)
        raise VolumeError(
            f"{url} states several sizes of a voxel ({said}): give the right one in nanometres by adding "
            "#resolution=z,y,x"
        )
    return next(iter(found.values()), None)


def _offset(url: str, attributes: Mapping[str, Any], axes: Axes) -> Vec:
    """The first voxel: ``offset`` counts voxels beside ``resolution_nm``, else it has the unit of the voxel's size."""
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


def _other_size(url: str, attributes: Mapping[str, Any], axes: Axes) -> tuple[float, float, float] | None:
    """The size of a voxel along z, y, x as another program wrote it, in the unit that it wrote."""
    for key in SIZES:
        if (found := _numbers(url, attributes, key, "resolution")) is not None:
            return _in_order(url, key, found, axes, "resolution")
    return None


def _factors(url: str, attributes: Mapping[str, Any], axes: Axes) -> tuple[float, float, float]:
    """Nanometres of the units along z, y, x."""
    for key in UNITS:
        value = attributes.get(key)
        if value is None:
            continue
        one = isinstance(value, str | bytes)
        names = [_name(value)] * 3 if one else _names(value) if isinstance(value, list | tuple | np.ndarray) else None
        factors = [UNITS_NM.get(str(name).lower()) for name in names or [None]]
        if None in factors:
            raise VolumeError(
                f"{url} has the attribute {key} = {_shown(value)}; known units are {', '.join(UNITS_NM)}: give the "
                "size of a voxel in nanometres by adding #resolution=z,y,x"
            )
        found = [factor for factor in factors if factor is not None]
        return (found[0],) * 3 if one else _in_order(url, key, found, axes, "resolution")
    return (1.0, 1.0, 1.0)


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
        f"{url} has the attribute {key} = {_shown(value)}; it must be three finite numbers: give them by adding "
        f"#{option}=z,y,x"
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
