"""OME-Zarr multiscales metadata (versions 0.4 and 0.5) to and from resolution and offset.

    nanometres of array index i along an axis = (translation + i * scale) * unit

A level may have its own scale and translation, and the multiscale image others that apply after those; other kinds
of transforms are refused. Options of the URL replace what is written, which is then not looked at.
Reference: OME-NGFF specification 0.4 and 0.5, section "multiscales".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pipeline.errors import VolumeError, counted
from pipeline.geometry import ZERO, Vec
from pipeline.volumes.axes import Axes
from pipeline.volumes.base import VolumeSpec
from pipeline.volumes.placement import UNITS_NM, Resolution, Stated, are_whole, tidy, unit_nm, whole_voxels

Kind = TypeVar("Kind")
KEY = "multiscales"
VERSIONS = ("None", "0.1", "0.2", "0.3", "0.4", "0.5")
"""How the versions begin that are understood, or that are not written."""
WORDS: dict[type, str] = {dict: "table", list: "list", str: "text"}
"""The forms of JSON values, for messages."""
LARGEST = 1e100
"""Numbers of metadata must be smaller, so that products of them are finite."""


@dataclass(frozen=True)
class Level:
    """One array of a multiscale image, with its transforms as they are written: they may be of any form."""

    path: str
    transforms: Any
    outer: Any
    """The transforms of the image, which apply after those of the level."""


@dataclass(frozen=True)
class Multiscale:
    """A multiscale image; level 0 is the finest."""

    names: list[str] | None
    """The names of the axes; ``None`` before version 0.3, where they are not written."""
    units: list[Any]
    """What is written as the unit of each axis; ``None`` if nothing is."""
    levels: list[Level]

    def level(self, url: str, mip: int) -> Level:
        """The level of a mip; ``VolumeError`` if there is none."""
        if mip >= len(self.levels):
            raise VolumeError(
                f"{url} has no mip {mip}; it has {counted(len(self.levels), 'level')}, 0 to {len(self.levels) - 1}"
            )
        return self.levels[mip]

    def has(self, path: str) -> bool:
        """True if one of the levels is the array at this path."""
        return any(level.path == path for level in self.levels)

    def stated(self, url: str, path: str, axes: Axes) -> Stated:
        """Resolution and offset of the array at a path."""
        level = next(level for level in self.levels if level.path == path)
        finest = self.levels[0]
        return Stated(lambda: self._resolution(url, level, axes), lambda: _offset(url, level, axes, finest))

    def _resolution(self, url: str, level: Level, axes: Axes) -> Resolution | None:
        """Nanometres, z, y, x; ``None`` if an axis has no unit or no scale is given."""
        units = axes.spatial(self.units if len(self.units) == len(axes.names) else [None] * len(axes.names))
        affine = _affine(url, level, len(axes.names))
        factors = [_nanometres(url, unit) for unit in units if unit is not None]
        if len(factors) < 3 or not affine.scaled:
            return None
        return tidy([s * f for s, f in zip(axes.spatial(affine.scale), factors, strict=True)])


@dataclass(frozen=True)
class _Affine:
    """One scale and one translation for each axis."""

    scale: list[float]
    translation: list[float]
    scaled: bool = False
    """True if a scale was written."""


def parse_multiscale(url: str, attributes: Mapping[str, Any]) -> Multiscale | None:
    """The multiscale image of a group's attributes; ``None`` if there is none, ``VolumeError`` if there are several."""
    images = parse_multiscales(url, attributes)
    if len(images) > 1:
        places = ", ".join(f"{url.partition('#')[0].rstrip('/')}/{image.levels[0].path}" for image in images)
        raise VolumeError(f"{url} holds {len(images)} images; name the array that is meant: {places}")
    return next(iter(images), None)


def parse_multiscales(url: str, attributes: Mapping[str, Any]) -> list[Multiscale]:
    """All multiscale images of a group's attributes; ``VolumeError`` if they have another form."""
    try:
        ome = _need(attributes.get("ome", attributes), dict, "ome")
        images, version = _need(ome.get(KEY) or [], list, KEY), ome.get("version")
        return [_multiscale(_need(image, dict, "an entry of multiscales"), version) for image in images]
    except _FormError as error:
        raise VolumeError(
            f"{url} has multiscales metadata that is not OME-Zarr 0.4 or 0.5 ({error}); open one of its arrays by its "
            "path, with everything that is needed: #axes=zyx&resolution=z,y,x&offset=z,y,x"
        ) from error


class _FormError(ValueError):
    """A part of the metadata is not what it must be."""


def _need(value: Any, kind: type[Kind], what: str) -> Kind:
    if not isinstance(value, kind):
        raise _FormError(f"{what} is {str(value)[:100]!r}, not a {WORDS[kind]}")
    return value


def _multiscale(image: Mapping[str, Any], version: Any) -> Multiscale:
    if not str(image.get("version", version)).startswith(VERSIONS) or "coordinateSystems" in image:
        raise _FormError(f"its version is {str(image.get('version', version))[:20]!r}, of which axes may be elsewhere")
    axes = _need(image["axes"], list, "axes") if "axes" in image else None
    outer = image.get("coordinateTransformations")
    levels = [
        Level(_need(dataset.get("path"), str, "path").strip("/"), dataset.get("coordinateTransformations"), outer)
        for dataset in (
            _need(each, dict, "an entry of datasets") for each in _need(image.get("datasets"), list, "datasets")
        )
    ]
    if not levels:
        raise _FormError("datasets is empty")
    tables = [axis if isinstance(axis, dict) else {"name": axis} for axis in axes or []]
    names = [_need(axis.get("name"), str, "the name of an axis") for axis in tables]
    return Multiscale(None if axes is None else names, [axis.get("unit") for axis in tables], levels)


def multiscale_attributes(name: str, levels: Mapping[str, VolumeSpec]) -> dict[str, Any]:
    """Group attributes (OME-Zarr 0.5) of a volume: nanometres, and the offset as a translation.

    levels: by the path of the array, the finest first. A translation is the centre of the first voxel, relative to that
    of voxel 0 of the finest level; so the first voxels of coarser levels lie further inside.
    """
    finest = next(iter(levels.values()))
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    if finest.channels is not None:
        axes.insert(0, {"name": "c", "type": "channel"})
    datasets = [_dataset(path, spec, finest) for path, spec in levels.items()]
    return {"ome": {"version": "0.5", KEY: [{"name": name, "axes": axes, "datasets": datasets}]}}


def _dataset(path: str, spec: VolumeSpec, finest: VolumeSpec) -> dict[str, Any]:
    sides = zip(spec.bounds.start, spec.resolution_nm, finest.resolution_nm, strict=True)
    scale, translation = list(spec.resolution_nm), [first * side + (side - fine) / 2 for first, side, fine in sides]
    if spec.channels is not None:
        scale.insert(0, 1.0)
        translation.insert(0, 0.0)
    transforms = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
    return {"path": path, "coordinateTransformations": transforms}


def _offset(url: str, level: Level, axes: Axes, finest: Level) -> Vec:
    """The first voxel of a level; its translation may be that of the voxel's centre, or of its corner."""
    affine = _affine(url, level, len(axes.names))
    translation = axes.spatial(affine.translation)
    if level is not finest:
        fine = axes.spatial(_affine(url, finest, len(axes.names)).scale)
        sides = zip(translation, axes.spatial(affine.scale), fine, strict=True)
        centred = [first - (side - small) / 2 for first, side, small in sides]
        if are_whole(centred, axes.spatial(affine.scale)):
            translation = (centred[0], centred[1], centred[2])
    if any(translation) and not affine.scaled:
        raise VolumeError(
            f"{url} has a translation of {translation} (z, y, x), but no scale that says how many voxels these are: "
            "give the first voxel by adding #offset=z,y,x"
        )
    return whole_voxels(url, translation, axes.spatial(affine.scale)) if any(translation) else ZERO


def _affine(url: str, level: Level, ndim: int) -> _Affine:
    """The transforms of a level, and then those of the image, one after the other."""
    result = _Affine([1.0] * ndim, [0.0] * ndim)
    try:
        for steps in (level.transforms, level.outer):
            for step in [] if steps is None else _need(steps, list, "coordinateTransformations"):
                result = _then(result, _need(step, dict, "a transform"), ndim)
    except _FormError as error:
        raise VolumeError(
            f"{url} has coordinateTransformations that cannot be used ({error}): give both what they would say by "
            "adding #resolution=z,y,x&offset=z,y,x"
        ) from error
    return result


def _then(before: _Affine, step: Mapping[str, Any], ndim: int) -> _Affine:
    match step.get("type"):
        case "identity":
            return before
        case "scale":
            by = _factors(step.get("scale"), ndim)
            moved = [a * b for a, b in zip(before.translation, by, strict=True)]
            return _Affine([a * b for a, b in zip(before.scale, by, strict=True)], moved, True)
        case "translation":
            by = _factors(step.get("translation"), ndim)
            return replace(before, translation=[a + b for a, b in zip(before.translation, by, strict=True)])
        case other:
            raise _FormError(f"a transform of type {str(other)[:100]!r}; scale and translation are understood")


def _factors(value: Any, ndim: int) -> list[float]:
    """One finite number for each axis."""
    numbers = _need(value, list, "scale or translation")
    good = all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < LARGEST for n in numbers)
    if len(numbers) != ndim or not good:
        raise _FormError(f"{str(numbers)[:100]} is not one finite number for each of {ndim} axes")
    return [float(n) for n in numbers]


def _nanometres(url: str, unit: Any) -> float:
    factor = unit_nm(unit) if isinstance(unit, str) else None
    if factor is None:
        raise VolumeError(
            f"{url} measures space in {str(unit)[:100]!r}; known units are {', '.join(UNITS_NM)}: add #resolution=z,y,x"
        )
    return factor
