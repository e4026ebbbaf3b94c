"""The voxel size that a TIFF file states: OME-XML (PhysicalSizeX, Y, Z) or ImageJ (spacing, unit, XResolution)."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import tifffile

from pipeline.errors import VolumeError
from pipeline.volumes.placement import Resolution, tidy, unit_nm


def voxel_size_nm(name: str, file: tifffile.TiffFile) -> Resolution | None:
    """Nanometres per voxel (z, y, x); ``None`` unless all three are stated with a unit of length.

    Raises ``VolumeError`` if they are stated in a form that cannot be understood.
    """
    try:
        if file.ome_metadata:
            return _ome(name, file.ome_metadata)
        if file.imagej_metadata:
            return _imagej(file.imagej_metadata, file.pages.first.tags)  # type: ignore[union-attr]
        return None
    except (ValueError, TypeError, ArithmeticError, AttributeError) as error:
        raise VolumeError(
            f"{name} states its voxel size in a form that cannot be understood ({error}); add #resolution=z,y,x"
        ) from error


def _ome(name: str, text: str) -> Resolution | None:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise VolumeError(f"{name} has OME metadata that is not XML ({error}); add #resolution=z,y,x") from error
    pixels = next((element for element in root.iter() if element.tag.endswith("}Pixels")), None)
    if pixels is None:
        return None
    sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    factors = [unit_nm(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "ZYX"]
    if None in sizes or None in factors:
        return None
    return tidy([float(size) * factor for size, factor in zip(sizes, factors, strict=True)])  # type: ignore[arg-type, operator]


def _imagej(metadata: dict[str, Any], tags: Any) -> Resolution | None:
    """ImageJ writes ``zunit`` and ``yunit`` only where they differ from ``unit``."""
    units = [metadata.get("zunit", metadata.get("unit", "")), metadata.get("yunit", metadata.get("unit", ""))]
    factors = [unit_nm(unit) for unit in (*units, metadata.get("unit", ""))]
    spacing = metadata.get("spacing")
    densities = [tags[key].value for key in ("YResolution", "XResolution") if key in tags]  # pixels per unit
    if None in factors or spacing is None or len(densities) < 2 or any(count == 0 for count, _ in densities):
        return None
    sides = [float(spacing), *(unit / count for count, unit in densities)]
    return tidy([side * factor for side, factor in zip(sides, factors, strict=True)])  # type: ignore[operator]
