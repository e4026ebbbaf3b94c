"""The promises of every storage format. Subclass ``ReadContract`` or ``WriteContract``; say how to make a volume."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BoundsError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes import VolumeSpec, create_volume, open_volume, spec_like

BOUNDS = BoundingBox((3, -20, 100), (43, 27, 153))
"""Sides 40, 47, 53: no axis equals another, none is a multiple of a chunk, and one start is negative."""
RESOLUTION_NM = (50.0, 4.6, 8.25)
CHUNK = (16, 8, 32)


def voxels(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Random voxels over the whole range of a type, so that a swap of axes or a lost bit is noticed."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


class ReadContract:
    """Promises of reading; ``stored`` makes a volume with given voxels by whatever means the format has."""

    dtypes: tuple[str, ...] = ("uint8", "uint16", "uint32", "uint64", "float32")
    channels: tuple[int | None, ...] = (None, 3)
    bounds = BOUNDS
    resolution_nm = RESOLUTION_NM

    def stored(self, folder: Path, data: np.ndarray) -> str:
        """The URL of a new volume that holds ``data``, (z, y, x) or (c, z, y, x), at ``bounds``."""
        raise NotImplementedError

    def data(self, dtype: str | None = None, channels: int | None = None) -> np.ndarray:
        """Voxels for the whole bounds."""
        shape = self.bounds.shape if channels is None else (channels, *self.bounds.shape)
        return voxels(shape, dtype or self.dtypes[0])

    def test_reads_back_every_type_and_channel_count(self, tmp_path: Path) -> None:
        """Voxels come back with their type, shape and values, channels first."""
        for channels in self.channels:
            for dtype in self.dtypes:
                data = self.data(dtype, channels)
                volume = open_volume(self.stored(tmp_path / f"{dtype}-{channels}", data))
                assert (volume.spec.dtype, volume.spec.channels) == (np.dtype(dtype), channels)
                found = volume.read(self.bounds)
                assert found.dtype == data.dtype
                assert found.shape == data.shape
                assert (found == data).all()

    def test_keeps_resolution_and_offset(self, tmp_path: Path) -> None:
        """The resolution in nanometres and the bounds come back, axis by axis."""
        spec = open_volume(self.stored(tmp_path, self.data())).spec
        assert spec.resolution_nm == pytest.approx(self.resolution_nm, rel=1e-6)
        assert spec.bounds == self.bounds

    def test_reads_any_box(self, tmp_path: Path) -> None:
        """Any box reads right: within a chunk, across chunks, at the border, one voxel thin."""
        for channels in self.channels:
            data = self.data(channels=channels)
            volume = open_volume(self.stored(tmp_path / str(channels), data))
            for box in random_boxes(self.bounds, 12):
                assert (volume.read(box) == data[(..., *box.slices(self.bounds.start))]).all()

    def test_is_indexed_like_an_array(self, tmp_path: Path) -> None:
        """An index counts from the volume's first voxel, and selects what it selects of an array."""
        for channels in self.channels:
            data = self.data(channels=channels)
            volume = open_volume(self.stored(tmp_path / str(channels), data))
            assert (volume.shape, volume.dtype) == (data.shape, data.dtype)
            for key in (np.s_[..., 3, :, -5:], np.s_[-1], np.s_[..., 5:30:7, ::-9, 50:]):
                assert (volume[key] == data[key]).all()

    def test_an_empty_box_has_no_voxels(self, tmp_path: Path) -> None:
        """Reading an empty box gives an empty array of its shape."""
        volume = open_volume(self.stored(tmp_path, self.data()))
        assert volume.read(BoundingBox.from_shape((0, 2, 3), self.bounds.start)).shape == (0, 2, 3)

    def test_refuses_a_box_outside(self, tmp_path: Path) -> None:
        """Reading a box that leaves the bounds is an error."""
        volume = open_volume(self.stored(tmp_path, self.data()))
        for box in (self.bounds.grow((1, 0, 0), (0, 0, 0)), self.bounds.grow((0, 0, 0), (0, 0, 1))):
            with pytest.raises(BoundsError, match="outside"):
                volume.read(box)

    def test_what_was_read_belongs_to_the_reader(self, tmp_path: Path) -> None:
        """Changing an array that was read does not change the volume."""
        data = self.data()
        volume = open_volume(self.stored(tmp_path, data))
        volume.read(self.bounds)[:] = 0
        assert (volume.read(self.bounds) == data).all()

    def test_threads_may_share_a_volume(self, tmp_path: Path) -> None:
        """Several threads read one volume at once and get the right voxels."""
        data = self.data()
        volume = open_volume(self.stored(tmp_path, data))
        boxes = random_boxes(self.bounds, 24)
        with ThreadPoolExecutor(4) as pool:
            for box, found in zip(boxes, pool.map(volume.read, boxes), strict=True):
                assert (found == data[box.slices(self.bounds.start)]).all()

    def test_a_volume_open_for_reading_refuses_to_write(self, tmp_path: Path) -> None:
        """Writing to a volume that was opened for reading is an error."""
        volume = open_volume(self.stored(tmp_path, self.data()))
        with pytest.raises(VolumeError, match="reading only"):
            volume.write(self.bounds, self.data())


class WriteContract(ReadContract):
    """Promises of formats that can be created."""

    storage_shard: tuple[int, int, int] | None = None

    def url(self, folder: Path) -> str:
        """A URL of this format, where nothing is yet; distinct folders give distinct URLs."""
        raise NotImplementedError

    def spec(self, dtype: str | None = None, channels: int | None = None) -> VolumeSpec:
        """The specification that the tests use."""
        dtype_ = np.dtype(dtype or self.dtypes[0])
        return VolumeSpec(self.bounds, self.resolution_nm, dtype_, channels, CHUNK, self.storage_shard)

    def stored(self, folder: Path, data: np.ndarray) -> str:
        """Create a volume, write it, and return its URL."""
        spec = self.spec(str(data.dtype), len(data) if data.ndim == 4 else None)
        create_volume(self.url(folder), spec).write(self.bounds, data)
        return self.url(folder)

    def test_a_new_volume_is_all_zero(self, tmp_path: Path) -> None:
        """Voxels that were never written are zero."""
        for channels in self.channels:
            volume = create_volume(self.url(tmp_path / str(channels)), self.spec(channels=channels))
            assert not volume.read(self.bounds).any()

    def test_the_specification_survives_reopening(self, tmp_path: Path) -> None:
        """Every field of the specification comes back when the volume is opened again."""
        for channels in self.channels:
            spec = self.spec(channels=channels)
            url = self.url(tmp_path / str(channels))
            assert create_volume(url, spec).spec == spec
            assert open_volume(url).spec == spec
            assert open_volume(url, mode="r+").spec == spec

    def test_writing_touches_only_its_box(self, tmp_path: Path) -> None:
        """A write that is not aligned to chunks changes only the voxels of its box."""
        for channels in self.channels:
            spec = self.spec(channels=channels)
            volume = create_volume(self.url(tmp_path / str(channels)), spec)
            expected = np.zeros(spec.array_shape(self.bounds), spec.dtype)
            for seed, box in enumerate(random_boxes(self.bounds, 8)):
                data = voxels(spec.array_shape(box), str(spec.dtype), seed)
                volume.write(box, data)
                expected[(..., *box.slices(self.bounds.start))] = data
            assert (open_volume(volume.url).read(self.bounds) == expected).all()

    def test_zeros_replace_what_was_there(self, tmp_path: Path) -> None:
        """Writing zeros replaces the voxels that were there."""
        volume = create_volume(self.url(tmp_path), self.spec())
        volume.write(self.bounds, self.data())
        volume.write(self.bounds, np.zeros_like(self.data()))
        assert not open_volume(volume.url).read(self.bounds).any()

    def test_writes_arrays_of_any_memory_order(self, tmp_path: Path) -> None:
        """Transposed and read-only arrays are written right."""
        data = self.data()
        turned = np.asfortranarray(data)
        turned.flags.writeable = False
        volume = create_volume(self.url(tmp_path), self.spec())
        volume.write(self.bounds, turned)
        assert (volume.read(self.bounds) == data).all()

    def test_creating_an_equal_volume_again_keeps_its_voxels(self, tmp_path: Path) -> None:
        """Creating a volume again with an equal specification, as a resumed run does, keeps its voxels."""
        url = self.stored(tmp_path, self.data())
        assert (create_volume(url, self.spec()).read(self.bounds) == self.data()).all()

    def test_creating_a_different_volume_says_what_differs(self, tmp_path: Path) -> None:
        """Creating a volume over one of another specification is an error that says what differs."""
        url = self.stored(tmp_path, self.data())
        other = spec_like(self.spec(), dtype="uint16", storage_shard=self.storage_shard)
        with pytest.raises(VolumeError, match=r"dtype is uint8, not uint16.*overwrite"):
            create_volume(url, other)

    def test_overwriting_leaves_nothing_of_the_old_volume(self, tmp_path: Path) -> None:
        """A volume created with ``overwrite`` is all zero and has the new specification."""
        url = self.stored(tmp_path, self.data())
        spec = spec_like(self.spec(), dtype="uint16", storage_shard=self.storage_shard)
        assert not create_volume(url, spec, overwrite=True).read(self.bounds).any()
        assert open_volume(url).spec == spec

    def test_refuses_a_write_outside(self, tmp_path: Path) -> None:
        """Writing beyond the bounds is an error."""
        volume = create_volume(self.url(tmp_path), self.spec())
        with pytest.raises(BoundsError, match="outside"):
            volume.write(self.bounds.translate((0, 0, 1)), self.data())

    def test_refuses_wrong_shapes_and_types(self, tmp_path: Path) -> None:
        """Writing an array of another shape or type than the box and the volume have is an error."""
        volume = create_volume(self.url(tmp_path), self.spec())
        with pytest.raises(VolumeError, match="shape"):
            volume.write(self.bounds, self.data()[:1])
        with pytest.raises(VolumeError, match="type"):
            volume.write(self.bounds, self.data().astype("int64"))

    def test_threads_may_write_different_objects_at_once(self, tmp_path: Path) -> None:
        """Threads that write different write units at once do not disturb each other."""
        data = self.data()
        volume = create_volume(self.url(tmp_path), self.spec())
        boxes = list(unit_boxes(self.bounds, volume.spec.write_unit))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda box: volume.write(box, data[box.slices(self.bounds.start)]), boxes))
        assert (open_volume(volume.url).read(self.bounds) == data).all()


def random_boxes(bounds: BoundingBox, count: int) -> list[BoundingBox]:
    """Boxes of all sizes inside bounds: the whole, one voxel, one plane, and random ones."""
    rng = np.random.default_rng(7)
    last = BoundingBox.from_shape((1, 1, 1), tuple(v - 1 for v in bounds.stop))  # type: ignore[arg-type]
    plane = BoundingBox.from_shape((1, *bounds.shape[1:]), bounds.start)
    boxes = [bounds, last, plane]
    while len(boxes) < count:
        ends = [
            np.sort(rng.choice(np.arange(a, b + 1), 2, False)) for a, b in zip(bounds.start, bounds.stop, strict=True)
        ]
        boxes.append(BoundingBox(tuple(int(e[0]) for e in ends), tuple(int(e[1]) for e in ends)))  # type: ignore[arg-type]
    return boxes


def unit_boxes(bounds: BoundingBox, unit: tuple[int, int, int]) -> list[BoundingBox]:
    """The boxes of all stored objects."""
    corners = np.stack(np.meshgrid(*(range(0, n, u) for n, u in zip(bounds.shape, unit, strict=True))), -1).reshape(
        -1, 3
    )
    starts = (tuple(int(v) for v in corner + bounds.start) for corner in corners)
    return [BoundingBox.from_shape(unit, start).intersect(bounds) for start in starts]  # type: ignore[arg-type]
