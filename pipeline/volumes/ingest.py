"""Ingest: copy any readable volume (image files, tiles, HDF5, npy, zarr, precomputed) into a new one, block by block.

    1. open the source; voxel size and offset come from it or from the caller              open_source
    2. with ``to``, measure the range of values                                            intensity.py
    3. put a marker beside the target, then create the target                              marker.py, create_volume
    4. copy block after block; the marker counts them, and a repeated call goes on there   _copy
    5. delete the marker: from now on the target is a volume like any other

A block is whole write units (storage chunks or shards), as many as ``memory_bytes`` holds and at least one, so no
object is written twice. Memory: about three blocks, and one section of a compressed TIFF image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.config.base import STORAGE_CHUNK
from pipeline.errors import ConfigError, VolumeError, counted
from pipeline.formats import MARK
from pipeline.geometry import BoundingBox, Triple, Vec
from pipeline.grid import ChunkGrid
from pipeline.storage import local_path
from pipeline.volumes import create_volume, open_volume, parse_target
from pipeline.volumes.base import Volume, VolumeSpec, spec_like
from pipeline.volumes.block_memory import enough_memory
from pipeline.volumes.formats import DEFAULT_FORMAT, entry_of
from pipeline.volumes.intensity import (
    PERCENTILES,
    Stretch,
    StretchedVolume,
    check_percentiles,
    measure,
    passes_of,
    remember,
    remembered,
)
from pipeline.volumes.location import detect_format, parse_location, split_options
from pipeline.volumes.marker import Marker
from pipeline.volumes.placement import NoResolutionError
from pipeline.volumes.places import links_below, overlap, place_of
from pipeline.volumes.presence import require_stored
from pipeline.volumes.selection import selected
from pipeline.volumes.slabs import SECTIONS, Progress, SlabReader, Tally, write_in_slabs
from pipeline.volumes.spec_checks import check_spec

BLOCK_BYTES = 2**28
"""Default size of a block: 256 MiB."""


@dataclass(frozen=True)
class IngestReport:
    """The result of an ingest."""

    url: str
    """The new volume."""
    spec: VolumeSpec
    blocks: int
    """Blocks of the whole volume."""
    resumed: int
    """Blocks that an earlier, interrupted call had written."""
    stretch: Stretch | None = None
    """The values that became 0 to 255, if the type was converted."""

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.spec.array_shape(self.spec.bounds)))
        size = " x ".join(f"{r:g}" for r in self.spec.resolution_nm)
        earlier = f", {self.resumed} of {counted(self.blocks, 'block')} by an earlier call" if self.resumed else ""
        converted = f"; {self.stretch}" if self.stretch else ""
        return (
            f"wrote {self.url}: {shape} voxels of {size} nm, {self.spec.dtype}, {self.spec.bounds}{earlier}{converted}"
        )

    @property
    def voxels(self) -> int:
        """Voxels of the volume."""
        return self.spec.bounds.voxels * (self.spec.channels or 1)


def ingest(
    source: str | Path,
    target_url: str,
    *,
    resolution_nm: tuple[float, float, float] | None = None,
    offset: Triple | None = None,
    storage_chunk: Triple | None = None,
    shard: Triple | None = None,
    format: str | None = None,
    dataset: str | None = None,
    to: str | None = None,
    percentiles: tuple[float, float] | None = None,
    select: Sequence[int] | None = None,
    colours: bool = False,
    overwrite: bool = False,
    memory_bytes: int = BLOCK_BYTES,
    on_progress: Progress = lambda done, total: None,
    on_voxels: Progress = lambda done, total: None,
) -> IngestReport:
    """Copy a source into a new volume; an interrupted call is finished by calling again with the same arguments.

    source: a folder of numbered TIFF, PNG or JPEG files, a multi-page TIFF, a tile set (JSON), an HDF5 file, a
        ``.npy`` file, or any volume URL.
    resolution_nm: nanometres per voxel (z, y, x); left out, what the source states.
    offset: position of the first voxel (z, y, x) in voxels; left out, what the source states, else 0, 0, 0.
    storage_chunk: voxels (z, y, x) of a stored chunk; left out, ``STORAGE_CHUNK``.
    shard: voxels (z, y, x) of a stored object that holds several chunks (zarr).
    format: zarr or precomputed; left out, what the target's URL says, else zarr.
    dataset: the name inside an HDF5 file.
    to: uint8 converts the values; left out, they keep their type.
    percentiles: with ``to``, which values of the whole source become 0 and 255; left out, ``PERCENTILES``. They are
        measured once, before the first block is written, and stored in the attributes of the target.
    select: write uint8, 1 where the source has one of these values and 0 elsewhere.
    colours: keep red, green and blue of image files as three channels; else files in colour are refused.
    overwrite: first delete an existing target, or the rest of an interrupted one, if petaseg made it.
    memory_bytes: size of a block.
    on_progress: called with the blocks done and all blocks, before the first and after each.
    on_voxels: called within blocks, with voxels measured, read and written so far, and in all: each voxel counts for
        each of the three that is done with it.

    Raises ``ConfigError`` if no voxel size is known or the target overlaps the source, ``VolumeError`` for a source
    that cannot be used and for a target that exists, ``StorageError`` if the target cannot be written.
    """
    target_place = parse_target(target_url)
    refuse_overlap(str(source), target_url)
    refuse_run_directory(target_url)
    wanted = wanted_percentiles(to, percentiles)
    volume = open_source(source, dataset, resolution_nm)
    require_stored(volume)
    refuse_colours(source, volume, colours)
    volume = selected(volume, select, to)
    spec = target_spec(volume.spec, offset, storage_chunk or STORAGE_CHUNK, shard)
    spec = replace(spec, dtype=np.dtype(np.uint8)) if wanted else spec
    check_spec(target_url, spec)
    grid = ChunkGrid(spec.bounds, spec.bounds, block_shape(spec, memory_bytes))
    marker = Marker(target_url, _fingerprint(source, volume, spec, grid, wanted, select))
    marker.refuse_foreign()
    begun, done = (True, 0) if overwrite else _progress(target_url, marker)
    kind = format or target_place.format or DEFAULT_FORMAT
    kept = remembered(target_place, kind) if wanted and done else None
    passes = passes_of(volume.spec.dtype) if wanted and not kept else 0
    ready = 2 * sum(grid.chunk(grid.index_at(number)).core.voxels for number in range(done))
    tally = Tally(on_voxels, (2 + passes) * spec.bounds.voxels, ready)
    volume = SlabReader(volume, SECTIONS if _has_sections(source) else spec.bounds.shape[0], tally)
    with enough_memory(target_url, spec, grid.shape):
        stretch = kept or (_stretch(volume, wanted, grid, spec) if wanted else None)
        with marker.kept_if_refused():
            marker.put(done)
            target = create_volume(target_url, spec, format=format, overwrite=begun and done == 0)
        if stretch:
            remember(target_place, kind, stretch)
            volume = StretchedVolume(volume, stretch)
        for number in range(done, len(grid)):
            on_progress(number, len(grid))
            _copy(volume, target, grid.chunk(grid.index_at(number)).core, tally)
            marker.put(number + 1)
        on_progress(len(grid), len(grid))
        marker.delete()
    return IngestReport(target_url, target.spec, len(grid), done, stretch)


def wanted_percentiles(to: str | None, percentiles: tuple[float, float] | None) -> tuple[float, float] | None:
    """The percentiles to stretch by; ``None`` if the type is kept, ``ConfigError`` if that is not what was said."""
    if to not in (None, "uint8"):
        raise ConfigError(f"to is {to!r}; only uint8 can be converted to: leave it out to keep the type")
    if to is None and percentiles is not None:
        raise ConfigError("percentiles say what becomes 0 and 255 in a conversion: add --to uint8, or leave them out")
    if percentiles is not None:
        check_percentiles(percentiles)
    return None if to is None else percentiles or PERCENTILES


def _has_sections(source: str | Path) -> bool:
    """True if the source keeps each section apart, so that reading a few at a time reads nothing twice."""
    location = parse_location(str(source))
    kind = location.format or detect_format(location)
    return kind is not None and entry_of(kind).in_folders


def _stretch(volume: Volume, percentiles: tuple[float, float], grid: ChunkGrid, spec: VolumeSpec) -> Stretch:
    """A measurement of all voxels."""
    move = volume.spec.bounds.start - spec.bounds.start
    return measure(volume, percentiles, lambda: (chunk.core.translate(move) for chunk in grid))


def refuse_overlap(source: str, target: str) -> None:
    """``ConfigError`` if the target is the source, holds it, or lies in it, also through links."""
    written, read = place_of(target), place_of(source)
    if how := overlap(written, read):
        raise ConfigError(
            f"the target {target} {how} the source {source}; writing it would destroy what is read: name a target "
            "apart from the source"
        )
    for place in links_below(read):
        if overlap(written, place):
            raise ConfigError(
                f"the source {source} has a link to {place}, which overlaps the target {target}; writing it would "
                "destroy what is read: name a target apart from the source"
            )


def refuse_run_directory(target: str) -> None:
    """``ConfigError`` if the target is, or lies directly in, a run directory, whose volumes only that run writes."""
    place = local_path(place_of(target))
    for folder in (place, place.parent) if place else ():
        if (folder / MARK.name).is_file():
            raise ConfigError(
                f"the target {target} lies in the run directory {folder}, where only that run writes; choose a target "
                "outside of it"
            )


def refuse_colours(source: str | Path, volume: Volume, wanted: bool) -> None:
    """``VolumeError`` for image files in colour unless it was said that colours are wanted: microscopes have none."""
    if volume.spec.channels is not None and _has_sections(source) and not wanted:
        raise VolumeError(
            f"{source} is in colour ({volume.spec.channels} channels), and an image of a microscope is grey: take one "
            "channel by adding #channel=1 (in quotes), or keep all for a network of colours with --colours "
            "(colours=True in Python)"
        )


def open_source(
    source: str | Path, dataset: str | None = None, resolution_nm: tuple[float, float, float] | None = None
) -> Volume:
    """Open the source; ``ConfigError`` if its voxel size is neither given nor stated."""
    url, fragment = split_options(str(source))
    if dataset is not None:
        if not parse_location(url).entry.has_datasets:
            raise ConfigError(
                f"dataset is {dataset!r}, but {source} is no file that holds datasets, such as .h5; leave it out"
            )
        url = f"{url}:{dataset}"
    options = [fragment] if fragment else []
    if resolution_nm is not None:
        options.append("resolution=" + ",".join(map(str, resolution_nm)))
    try:
        return open_volume(url + ("#" if options or "#" in url else "") + "&".join(options))
    except NoResolutionError:
        raise ConfigError(
            f"{source} does not say how large its voxels are; give their size in nanometres along z, y, x: "
            "--resolution 8,8,8 (resolution_nm=(8, 8, 8) in Python)"
        ) from None


def target_spec(source: VolumeSpec, offset: Triple | None, storage_chunk: Triple, shard: Triple | None) -> VolumeSpec:
    """The specification of the copy."""
    start = source.bounds.start if offset is None else offset
    spec = spec_like(source, channels=source.channels, storage_chunk=storage_chunk, storage_shard=shard)
    return replace(spec, bounds=BoundingBox.from_shape(source.bounds.shape, start))


def block_shape(spec: VolumeSpec, memory_bytes: int) -> Vec:
    """Voxels of a block: write units, repeated along x, then y, then z, while they fit in ``memory_bytes``."""
    shape = spec.write_unit
    for axis in (2, 1, 0):
        units = spec.bounds.shape.ceil_div(shape)[axis]
        times = max(1, min(units, memory_bytes // spec.bytes_of(shape)))
        shape *= Vec(*(times if a == axis else 1 for a in range(3)))
    return shape


def _copy(source: Volume, target: Volume, box: BoundingBox, tally: Tally) -> None:
    move = source.spec.bounds.start - target.spec.bounds.start
    write_in_slabs(target, box, source.read(box.translate(move)), tally)


def _progress(target_url: str, marker: Marker) -> tuple[bool, int]:
    """Whether an interrupted call began the target, and how many of its blocks it wrote."""
    location = parse_location(target_url)
    found = detect_format(location) if location.entry.lasting else None
    done = marker.blocks_done()
    if done is None and found:
        raise VolumeError(
            f"{target_url} exists already, as {found}; choose another target, or replace it with --overwrite"
        )
    return done is not None, done if done and found else 0


def _fingerprint(
    source: str | Path,
    volume: Volume,
    spec: VolumeSpec,
    grid: ChunkGrid,
    percentiles: tuple[float, float] | None,
    select: Sequence[int] | None,
) -> str:
    """Digest of names, sizes and times of the source's files, and of the target's specification, grid and values."""
    path = local_path(parse_location(str(source)).base)
    files = sorted(path.rglob("*")) if path and path.is_dir() else [path] if path and path.exists() else []
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    values = [] if percentiles is None else [percentiles]
    chosen = [] if select is None else [["select", *sorted(set(select))]]
    text = json.dumps([volume.url, stats, repr(spec), grid.shape, *values, *chosen])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
