"""Edits out of a saved state of Neuroglancer: lines in annotation layers called ``merge`` and ``split``.

    merge    a line from a point in one segment to a point in another: both are one neuron
    split    a line between two points of one segment that belong to two neurons; lines with the same description are
             one split, with the beginnings of all lines on one side, and their ends on the other

The state is what ``petaseg view`` keeps (view.json), or the JSON that Neuroglancer itself shows and saves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

from pipeline.errors import ConfigError, VolumeError
from pipeline.formats import VIEW
from pipeline.geometry import Vec
from pipeline.runs.edits_named import Wanted
from pipeline.segmentation.edits import MERGE, SPLIT
from pipeline.storage import store_of

AXES = ("z", "y", "x")
DIGITS = 6
"""Decimals of a voxel that count: positions are stored in metres, which do not divide evenly."""


def edits_of_state(path: str, resolution_nm: tuple[float, float, float]) -> list[Wanted]:
    """The edits that are drawn in a saved state, merges first; ``ConfigError`` for one without any.

    resolution_nm: the size of a voxel of the run, z, y, x.
    """
    state = _read(path)
    try:
        lines = {kind: _lines(state, kind, path, resolution_nm) for kind in (MERGE, SPLIT)}
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ConfigError(
            f"{path} has annotations that Neuroglancer does not write ({error!r}); save it anew"
        ) from None
    merges = [Wanted(MERGE, (a,), (b,), source) for a, b, _, source in lines[MERGE]]
    groups: dict[str, list[tuple[Vec, Vec, str, str]]] = {}
    for number, line in enumerate(lines[SPLIT]):
        groups.setdefault(line[2] or f"\n{number}", []).append(line)
    splits = [
        Wanted(SPLIT, tuple(line[0] for line in group), tuple(line[1] for line in group), group[0][3])
        for group in groups.values()
    ]
    if not merges and not splits:
        raise ConfigError(
            f"{path} has no lines in annotation layers called merge and split; draw some in `petaseg view`, and end it"
        )
    return [*merges, *splits]


def _read(path: str) -> Mapping[str, Any]:
    """The state in a file of petaseg, or of Neuroglancer."""
    store, key = store_of(path)
    data = store.get_or_none(key)
    if data is None:
        raise ConfigError(f"{path} does not exist; name a saved state, such as view.json in the run directory")
    try:
        plain = json.loads(data)
    except ValueError as error:
        raise ConfigError(f"{path} is no saved state ({error}); save it anew") from None
    if isinstance(plain, Mapping) and "state" in plain:
        VIEW.check(plain, path, VolumeError)
        plain = plain["state"]
    if not isinstance(plain, Mapping) or not isinstance(plain.get("layers"), list):
        raise ConfigError(f"{path} is no saved state of Neuroglancer, since it has no layers; save it anew")
    return plain


def _lines(
    state: Mapping[str, Any], name: str, path: str, resolution_nm: Sequence[float]
) -> list[tuple[Vec, Vec, str, str]]:
    """Beginning, end, description and words of each line in the layers of a name."""
    found = []
    for layer in state["layers"]:
        if not isinstance(layer, Mapping) or layer.get("type") != "annotation" or layer.get("name") != name:
            continue
        scale = _voxels(_dimensions(layer, state), resolution_nm, f"{path}, layer {name}")
        for number, each in enumerate(layer.get("annotations", ()), start=1):
            source = f"{path}, layer {name}, annotation {number}"
            if each.get("type") != "line":
                raise ConfigError(f"{source} is a {each.get('type')}; an edit is a line: draw one, and remove this")
            one, other = _voxel(each["pointA"], scale), _voxel(each["pointB"], scale)
            found.append((one, other, str(each.get("description") or "").strip(), source))
    return found


def _dimensions(layer: Mapping[str, Any], state: Mapping[str, Any]) -> Any:
    """The axes in which a layer's points are given, with the length of their units."""
    source = layer.get("source")
    for each in source if isinstance(source, list) else [source]:
        if isinstance(each, Mapping) and "transform" in each:
            return each["transform"].get("outputDimensions", state.get("dimensions"))
    return state.get("dimensions")


def _voxels(dimensions: Any, resolution_nm: Sequence[float], source: str) -> list[tuple[int, float]]:
    """For z, y and x: which number of a point it is, and the voxels of the run in its unit."""
    names = list(dimensions) if isinstance(dimensions, Mapping) else []
    if sorted(names) != sorted(AXES) or not all(dimensions[axis][1] == "m" for axis in AXES):
        raise ConfigError(f"{source} has the axes {dimensions}; edits need x, y and z in metres, as `petaseg view` has")
    return [
        (names.index(axis), dimensions[axis][0] * 1e9 / size) for axis, size in zip(AXES, resolution_nm, strict=True)
    ]


def _voxel(point: Sequence[float], scale: Sequence[tuple[int, float]]) -> Vec:
    """The voxel in which a point lies: voxel 7 reaches from 7.0 to 8.0."""
    z, y, x = (floor(round(point[place] * factor, DIGITS)) for place, factor in scale)
    return Vec(z, y, x)
