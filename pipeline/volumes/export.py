"""Volumes -> one file or folder for another program, block by block; it appears under its name when it is complete.

precomputed   Neuroglancer layer with all levels, labels as compressed_segmentation, in chunks or in shards
ome-zarr      OME-Zarr 0.5 with all levels: the image, and the labels in its group ``labels``; without an image, labels
hdf5          one dataset ``volume`` of the finest level, gzip, with resolution and offset
tiff          OME-TIFF of the finest level, one page a section, zlib, BigTIFF; labels as uint32, as Fiji reads them

What is written lies beside the target under a hidden name until it is renamed, so no other program finds half of it.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product as cartesian
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import PARTIAL, ObjectStore, local_path, storage_errors
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import Volume, VolumeSpec, spec_like
from pipeline.volumes.late_errors import LateErrors
from pipeline.volumes.slabs import Tally

WIDE = Vec(1, 8, 8)
"""Stored chunks that are read and written together: 128 MiB of labels in chunks of 64 x 64 x 64."""
PAGE_BYTES = 2**27
"""Bytes of sections that are read together for pages of TIFF; at least one section."""
LARGEST_ID = 2**32 - 1
"""The largest id of a label in a TIFF."""


@dataclass(frozen=True)
class Exported:
    """A volume with its levels, the finest first, each as ``open_volume`` takes it."""

    name: str
    urls: tuple[str, ...]

    def levels(self, box: BoundingBox) -> list[tuple[Volume, BoundingBox]]:
        """Each level, with the voxels of it that a box of the finest one touches."""
        found = [open_volume(url) for url in self.urls]
        return [(level, _coarse(box, found[0], level)) for level in found]


def export(
    volume: Exported,
    output: str,
    kind: str,
    box: BoundingBox,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    image: Exported | None = None,
    sharded: bool = False,
) -> None:
    """Write a box of a volume, and of its levels where the format has them, to a new file or folder.

    kind: a key of ``WRITERS``. box: voxels of the finest level. image: the image that OME-Zarr has beside labels.
    sharded: many chunks in one file, for precomputed.

    Raises ``ConfigError`` if the output is there already or not on this machine, ``VolumeError`` if the format cannot
    hold the voxels.
    """
    if kind not in WRITERS:
        raise ConfigError(f"--to is {kind!r}; there are {', '.join(WRITERS)}")
    if sharded and kind != "precomputed":
        raise ConfigError(f"--sharded is for --to precomputed, and --to is {kind}: leave it out")
    writer, several = (_write_sharded, True) if sharded else WRITERS[kind]
    images = [] if image is None or kind != "ome-zarr" else image.levels(box)
    labels = volume.levels(box)[: None if several else 1]
    total = sum(part.voxels for _, part in (*labels, *images))
    with appearing(output) as place:
        writer(volume.name, labels, images, place, Tally(on_progress, total, 0))


Levels = Sequence[tuple[Volume, BoundingBox]]


def _write_precomputed(name: str, levels: Levels, images: Levels, place: Path, tally: Tally) -> None:
    _create_precomputed(place, _specs_of(levels))
    for number, (volume, box) in enumerate(levels):
        _copy(volume, open_volume(f"precomputed://{place}#mip={number}", mode="r+"), box, tally)


def _write_sharded(name: str, levels: Levels, images: Levels, place: Path, tally: Tally) -> None:
    from pipeline.volumes.precomputed_shards import ShardWriter, sharding_of  # it imports cloud-volume

    specs = _specs_of(levels)
    info = _create_precomputed(place, specs)
    scales = [{**scale, "sharding": sharding_of(spec)} for scale, spec in zip(info["scales"], specs, strict=True)]
    (place / "info").write_text(json.dumps({**info, "scales": scales}, indent=2))
    for (volume, box), scale, spec in zip(levels, scales, specs, strict=True):
        writer = ShardWriter(ObjectStore(place / scale["key"]), scale, spec)
        for part in blocks(box, writer.shard_shape):
            writer.write(part, volume.read(part))
            tally.add(part.voxels)


def _specs_of(levels: Levels) -> list[VolumeSpec]:
    """What each level is in its target, without shards."""
    return [replace(spec_like(volume), bounds=box, channels=volume.spec.channels) for volume, box in levels]


def _create_precomputed(place: Path, specs: Sequence[VolumeSpec]) -> dict[str, Any]:
    """Make an empty layer with a scale for each level, and return its info."""
    create_volume(f"precomputed://{place}", specs[0])
    scales = []
    for number, spec in enumerate(specs):  # the codec's own metadata for each level, joined in one layer
        part = place / f"scale{number}"
        create_volume(f"precomputed://{part}", spec)
        scales += json.loads((part / "info").read_text())["scales"]
        shutil.rmtree(part)
    info = {**json.loads((place / "info").read_text()), "scales": scales}
    (place / "info").write_text(json.dumps(info, indent=2))
    return info


def _write_ome_zarr(name: str, levels: Levels, images: Levels, place: Path, tally: Tally) -> None:
    """The image as the group itself, and the labels in ``labels/<name>``; without an image, the labels as the group."""
    if not images:
        _write_multiscale(name, str(place), levels, tally, {"image-label": {"version": "0.5"}})
        return
    _write_multiscale("image", str(place), images, tally, {})
    source = {"version": "0.5", "source": {"image": "../../"}}
    _write_multiscale(name, f"{place}/labels/{name}", levels, tally, {"image-label": source})
    _put_group(f"{place}/labels", {"version": "0.5", "labels": [name]})


def _write_multiscale(name: str, url: str, levels: Levels, tally: Tally, more: dict[str, Any]) -> None:
    from pipeline.volumes.levels import StoredLevel
    from pipeline.volumes.ome_metadata import multiscale_attributes
    from pipeline.volumes.ome_zarr import create_array

    specs: dict[str, VolumeSpec] = {}
    for number, (volume, box) in enumerate(levels):
        spec = specs[str(number)] = replace(volume.spec, bounds=box, storage_shard=None)
        create_array(ObjectStore(f"{url}/{number}"), spec)
        level = StoredLevel(url, number, spec)
        _copy(volume, open_volume(level.unlisted_url, mode="r+"), box, tally)
    _put_group(url, {**multiscale_attributes(name, specs)["ome"], **more})


def _put_group(url: str, ome: dict[str, Any]) -> None:
    from pipeline.volumes.ome_zarr import GROUP

    ObjectStore(url).put("zarr.json", json.dumps({**GROUP, "attributes": {"ome": ome}}, indent=2).encode())


def _write_hdf5(name: str, levels: Levels, images: Levels, place: Path, tally: Tally) -> None:
    import h5py

    ((volume, box),) = levels
    spec = volume.spec
    shape = spec.array_shape(box)
    chunks = (*shape[:-3], *spec.storage_chunk.minimum(box.shape))
    with LateErrors(place, "w+") as raw, h5py.File(raw, "w") as file:
        data = file.create_dataset(name, shape, spec.dtype, chunks=chunks, compression="gzip", compression_opts=1)
        data.attrs.update(resolution_nm=spec.resolution_nm, offset=tuple(box.start))
        data.attrs["element_size_um"] = [side / 1000 for side in spec.resolution_nm]
        for part in blocks(box, spec.storage_chunk * WIDE):
            data[(..., *part.slices(box.start))] = volume.read(part)
            tally.add(part.voxels)
            if raw.error is not None:
                break
    raw.raise_error()


def _write_tiff(name: str, levels: Levels, images: Levels, place: Path, tally: Tally) -> None:
    import tifffile

    ((volume, box),) = levels
    if volume.spec.channels is not None:
        raise VolumeError(f"{volume.url} has {volume.spec.channels} channels; a TIFF of sections has one: take hdf5")
    wide = volume.dtype.kind == "u" and volume.dtype.itemsize > 4
    z, y, x = volume.resolution_nm
    sizes: dict[str, Any] = {f"PhysicalSize{axis}": side / 1000 for axis, side in zip("ZYX", (z, y, x), strict=True)}
    sizes |= {f"PhysicalSize{axis}Unit": "µm" for axis in "ZYX"}
    with tifffile.TiffWriter(place, bigtiff=True, ome=True) as file:
        file.write(
            _pages(volume, box, wide, tally),
            shape=tuple(box.shape),
            dtype=np.dtype(np.uint32) if wide else volume.dtype,
            compression="zlib",
            photometric="minisblack",
            resolution=(1e7 / x, 1e7 / y),
            resolutionunit="CENTIMETER",
            metadata={"axes": "ZYX", "Name": name, **sizes},
        )


def _pages(volume: Volume, box: BoundingBox, wide: bool, tally: Tally) -> Iterator[np.ndarray]:
    """The sections of a box, (y, x); ids as uint32 if they are ``wide``."""
    page = Vec(1, *box.shape[1:])
    for part in blocks(box, page * (max(1, PAGE_BYTES // volume.spec.bytes_of(page)), 1, 1)):
        voxels = volume.read(part)
        if wide:
            if (largest := int(voxels.max())) > LARGEST_ID:
                raise VolumeError(
                    f"{volume.url} has the id {largest}, and TIFF readers take ids up to {LARGEST_ID}: export it to "
                    "hdf5, ome-zarr or precomputed, which hold 64 bits"
                )
            voxels = voxels.astype(np.uint32)
        tally.add(part.voxels)
        yield from voxels


Writer = Callable[[str, Levels, Levels, Path, Tally], None]
WRITERS: dict[str, tuple[Writer, bool]] = {
    "precomputed": (_write_precomputed, True),
    "ome-zarr": (_write_ome_zarr, True),
    "hdf5": (_write_hdf5, False),
    "tiff": (_write_tiff, False),
}
"""What ``--to`` takes: the function, and whether the format has levels."""


def blocks(box: BoundingBox, shape: Vec) -> Iterator[BoundingBox]:
    """The box in parts of at most this shape, from its start, in C order."""
    z, y, x = map(range, box.start, box.stop, shape)
    for corner in cartesian(z, y, x):
        yield BoundingBox.from_shape(shape, corner).intersect(box)


def _copy(source: Volume, target: Volume, box: BoundingBox, tally: Tally) -> None:
    for part in blocks(box, target.spec.storage_chunk * WIDE):
        target.write(part, source.read(part))
        tally.add(part.voxels)


def _coarse(box: BoundingBox, finest: Volume, level: Volume) -> BoundingBox:
    """What a box of the finest level touches of another, whose voxels lie at multiples of their size."""
    sides = zip(level.resolution_nm, finest.resolution_nm, strict=True)
    factor = Vec(*(round(coarse / fine) for coarse, fine in sides))
    return BoundingBox(box.start // factor, box.stop.ceil_div(factor)).intersect(level.bounds)


@contextmanager
def appearing(output: str) -> Iterator[Path]:
    """A hidden place beside a new file or folder, which gets its name at the end; deleted if an error ends it."""
    path = local_path(output)
    if path is None:
        raise ConfigError(f"the output {output} is not on this machine; export to a path, and copy it from there")
    if os.path.lexists(path):
        raise ConfigError(f"{path} exists already, and nothing is replaced: choose another output, or delete it")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path.absolute().parent} is no folder; make it first, or choose another output")
    hidden = path.absolute().with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with storage_errors("write", str(path)):
            yield hidden
            if os.path.lexists(path):
                raise ConfigError(f"{path} was made by somebody meanwhile, and nothing is replaced: choose another one")
            hidden.rename(path)
    finally:
        if hidden.is_dir():
            shutil.rmtree(hidden)
        else:
            hidden.unlink(missing_ok=True)
