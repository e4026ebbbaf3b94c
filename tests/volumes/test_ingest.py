"""Every source is copied in bounded memory, and an interrupted copy goes on where it was."""

import errno
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import h5py
import numpy as np
import psutil
import pytest
import tifffile

from pipeline.errors import ConfigError, StorageError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.storage import ObjectStore, as_storage_error
from pipeline.volumes import VolumeSpec, create_volume, marker, open_volume
from pipeline.volumes.ingest import block_shape, ingest

DATA = np.random.default_rng(0).integers(0, 60000, (21, 34, 55), "uint16")
Source = Callable[..., str]
SMALL = {"storage_chunk": (8, 8, 16), "memory_bytes": 8 * 16 * 64 * 2}


def tiff_folder(folder: Path, data: np.ndarray = DATA) -> str:
    (folder / "stack").mkdir()
    for number, section in enumerate(data):
        tifffile.imwrite(folder / f"stack/s{number}.tif", section, photometric="minisblack")
    return str(folder / "stack")


def tiff_file(folder: Path, data: np.ndarray = DATA) -> str:
    tifffile.imwrite(folder / "stack.tif", data, photometric="minisblack")
    return str(folder / "stack.tif")


def hdf5(folder: Path, data: np.ndarray = DATA) -> str:
    with h5py.File(folder / "a.h5", "w") as file:
        file["raw"] = data
    return str(folder / "a.h5")


def npy(folder: Path, data: np.ndarray = DATA) -> str:
    np.save(folder / "a.npy", data)
    return str(folder / "a.npy")


def precomputed(folder: Path, data: np.ndarray = DATA) -> str:
    spec = VolumeSpec(BoundingBox.from_shape((21, 34, 55)), (1.0, 1.0, 1.0), data.dtype)
    create_volume(f"precomputed://{folder}/layer", spec).write(spec.bounds, data)
    return f"precomputed://{folder}/layer"


@pytest.mark.parametrize("make", [tiff_folder, tiff_file, hdf5, npy, precomputed])
@pytest.mark.parametrize("kind", ["zarr", "precomputed"])
def test_every_source_arrives_as_it_was(make: Source, kind: str, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = ingest(
        make(tmp_path),
        f"{tmp_path}/out",
        resolution_nm=(50, 4.6, 4.6),
        offset=(3, -2, 1),
        format=kind,
        on_progress=lambda done, total: calls.append((done, total)),
        **SMALL,  # type: ignore[arg-type]
    )
    volume = open_volume(f"{tmp_path}/out")
    assert volume.spec == report.spec
    assert volume.spec.resolution_nm == (50.0, 4.6, 4.6)
    assert volume.spec.bounds == BoundingBox.from_shape((21, 34, 55), (3, -2, 1))
    assert (volume.read(volume.spec.bounds) == DATA).all()
    assert report.blocks == len(calls) - 1 == 9
    assert calls[-1] == (9, 9)
    assert report.voxels == DATA.size
    assert not list(tmp_path.glob("*.json"))


def test_progress_is_told_within_a_block(tmp_path: Path) -> None:
    """One large block is told section by section and row by row, measured, read and written, up to the last voxel."""
    calls: list[tuple[int, int]] = []
    source = tiff_folder(tmp_path)
    sizes = {"resolution_nm": (8, 8, 8), "to": "uint8", "percentiles": (0, 100), "storage_chunk": (32, 8, 64)}
    told = lambda done, total: calls.append((done, total))  # noqa: E731
    assert ingest(source, f"{tmp_path}/out", on_voxels=told, **sizes).blocks == 1  # type: ignore[arg-type]
    assert calls[0] == (0, 3 * DATA.size)
    assert calls[-1] == (3 * DATA.size, 3 * DATA.size)
    assert len(calls) == 1 + 6 + 6 + 5, "21 sections by 4, twice, and 34 rows by 8"
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_resumed_ingest_goes_on_at_the_share_that_is_done(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    source = npy(tmp_path)
    with pytest.raises(Interruption):
        ingest(source, f"{tmp_path}/out", resolution_nm=(8, 8, 8), on_progress=interrupt_at(5), **SMALL)  # type: ignore[arg-type]
    told = lambda done, total: calls.append((done, total))  # noqa: E731
    ingest(source, f"{tmp_path}/out", resolution_nm=(8, 8, 8), on_voxels=told, **SMALL)  # type: ignore[arg-type]
    assert 0 < calls[0][0] < calls[-1][0] == calls[0][1] == 2 * DATA.size


def test_what_the_source_states_is_kept(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["affinities"] = np.stack([DATA, DATA])
        file["affinities"].attrs["resolution_nm"] = [40.0, 8.0, 8.0]
        file["affinities"].attrs["offset"] = [1, 2, 3]
        file["other"] = DATA
    report = ingest(tmp_path / "a.h5", f"{tmp_path}/out.zarr", dataset="affinities", shard=(64, 64, 128))
    assert report.spec.resolution_nm == (40.0, 8.0, 8.0)
    assert report.spec.bounds.start == (1, 2, 3)
    assert (report.spec.channels, report.spec.storage_shard) == (2, (64, 64, 128))


def test_an_unknown_voxel_size_says_how_to_give_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--resolution 8,8,8"):
        ingest(npy(tmp_path), f"{tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_a_dataset_is_for_hdf5_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file that holds datasets"):
        ingest(npy(tmp_path), f"{tmp_path}/out", dataset="raw")


def test_a_whole_bucket_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a folder in it: s3://bucket/image"):
        ingest(npy(tmp_path), "s3://bucket", resolution_nm=(8, 8, 8))


def test_types_that_cannot_be_stored_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DATA.astype(complex))
    with pytest.raises(VolumeError, match="holds complex128; voxels must be integers or floats"):
        ingest(tmp_path / "a.npy", f"{tmp_path}/out", resolution_nm=(8, 8, 8))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_an_existing_target_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    target = f"{tmp_path}/out"
    ingest(npy(tmp_path), target, resolution_nm=(8, 8, 8))
    with pytest.raises(VolumeError, match=r"exists already, as zarr.*--overwrite"):
        ingest(npy(tmp_path), target, resolution_nm=(4, 4, 4))
    assert open_volume(target).spec.resolution_nm == (8.0, 8.0, 8.0)
    ingest(npy(tmp_path), target, resolution_nm=(4, 4, 4), overwrite=True)
    assert open_volume(target).spec.resolution_nm == (4.0, 4.0, 4.0)


def test_a_folder_with_other_things_stays_as_it_is(tmp_path: Path) -> None:
    source = npy(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(VolumeError, match="other things in it"):
            ingest(source, f"{tmp_path}/mine", resolution_nm=(8, 8, 8), overwrite=overwrite)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.npy", "mine", "notes.txt"]


class Interruption(Exception):  # noqa: N818  (not an error of the program)
    """A test stops a copy half-way with this."""


def interrupt_at(block: int) -> Callable[[int, int], None]:
    def stop(done: int, total: int) -> None:
        if done == block:
            raise Interruption

    return stop


@pytest.mark.parametrize("kind", ["zarr", "precomputed"])
@pytest.mark.parametrize("block", [0, 1, 6])
def test_an_interrupted_copy_goes_on_where_it_was(tmp_path: Path, block: int, kind: str) -> None:
    source, target = npy(tmp_path), f"{kind}://{tmp_path}/out"
    settings = {"resolution_nm": (8, 8, 8), **SMALL}
    with pytest.raises(Interruption):
        ingest(source, target, on_progress=interrupt_at(block), **settings)  # type: ignore[arg-type]
    report = ingest(source, target, **settings)  # type: ignore[arg-type]
    assert report.resumed == block
    assert (f"{block} of 9 blocks by an earlier call" in str(report)) == (block > 0)
    assert "21 x 34 x 55 voxels of 8 x 8 x 8 nm, uint16" in str(report)
    assert (open_volume(target).read(report.spec.bounds) == DATA).all()


def test_a_copy_of_another_source_is_not_continued(tmp_path: Path) -> None:
    source, target = npy(tmp_path), f"{tmp_path}/out"
    with pytest.raises(Interruption):
        ingest(source, target, resolution_nm=(8, 8, 8), on_progress=interrupt_at(3), **SMALL)  # type: ignore[arg-type]
    np.save(source, DATA + 1)
    with pytest.raises(VolumeError, match="begun from another source"):
        ingest(source, target, resolution_nm=(8, 8, 8), **SMALL)  # type: ignore[arg-type]
    ingest(source, target, resolution_nm=(8, 8, 8), overwrite=True, **SMALL)  # type: ignore[arg-type]
    assert (open_volume(target).read(BoundingBox.from_shape((21, 34, 55))) == DATA + 1).all()


def test_a_target_that_vanished_is_written_again_from_the_start(tmp_path: Path) -> None:
    """A copy whose target has vanished resumes no block and writes all of them again."""
    source, target = npy(tmp_path), f"{tmp_path}/out"
    with pytest.raises(Interruption):
        ingest(source, target, resolution_nm=(8, 8, 8), on_progress=interrupt_at(5), **SMALL)  # type: ignore[arg-type]
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert ingest(source, target, resolution_nm=(8, 8, 8), **SMALL).resumed == 0  # type: ignore[arg-type]
    assert (open_volume(target).read(BoundingBox.from_shape((21, 34, 55))) == DATA).all()


@pytest.mark.parametrize("kind", ["zarr", "precomputed"])
def test_an_unfinished_volume_is_not_read(tmp_path: Path, kind: str) -> None:
    """A volume that an ingest has left unfinished cannot be opened for reading, until the ingest is finished."""
    source, target = npy(tmp_path), f"{kind}://{tmp_path}/out"
    settings = {"resolution_nm": (8, 8, 8), **SMALL}
    with pytest.raises(Interruption):
        ingest(source, target, on_progress=interrupt_at(4), **settings)  # type: ignore[arg-type]
    for url in (target, f"{tmp_path}/out"):
        with pytest.raises(VolumeError, match="give the same petaseg ingest command again"):
            open_volume(url)
    with pytest.raises(VolumeError, match="has not finished writing it"):
        ingest(target, f"{tmp_path}/copy", **SMALL)  # type: ignore[arg-type]
    ingest(source, target, **settings)  # type: ignore[arg-type]
    assert open_volume(target).spec.bounds.shape == DATA.shape


def test_an_array_within_an_unfinished_volume_is_not_read(tmp_path: Path) -> None:
    source, target = npy(tmp_path), f"{tmp_path}/out"
    with pytest.raises(Interruption):
        ingest(source, target, resolution_nm=(8, 8, 8), on_progress=interrupt_at(4), **SMALL)  # type: ignore[arg-type]
    array = next(path.parent for path in (tmp_path / "out").glob("*/zarr.json"))
    with pytest.raises(VolumeError, match="has not finished writing it"):
        open_volume(str(array))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_where_no_marker_may_be_looked_for_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """Someone who may read a volume and nothing beside it is warned; any other error of the store is raised."""

    def refuse(store: ObjectStore, key: str) -> bool:
        raise as_storage_error(OSError(number, os.strerror(number)), "look for", key)

    target = f"{tmp_path}/out"
    ingest(npy(tmp_path), target, resolution_nm=(8, 8, 8), **SMALL)  # type: ignore[arg-type]
    monkeypatch.setattr(marker, "ObjectStore", type("Store", (ObjectStore,), {"exists": refuse}))
    if number == errno.EACCES:
        assert open_volume(target).spec.bounds.shape == DATA.shape
        assert f"whether an ingest has finished {target} is not known" in caplog.text
    else:
        with pytest.raises(StorageError, match=r"out\.ingest\.json"):
            open_volume(target)


def test_an_ingest_that_is_refused_leaves_an_unfinished_volume_unfinished(tmp_path: Path) -> None:
    """A second ingest that is refused does not make the volume that the first left unfinished look complete."""
    source, target = npy(tmp_path), f"{tmp_path}/out"
    with pytest.raises(Interruption):
        ingest(source, target, resolution_nm=(8, 8, 8), on_progress=interrupt_at(4), **SMALL)  # type: ignore[arg-type]
    np.save(tmp_path / "complex.npy", DATA.astype(complex))
    with pytest.raises(VolumeError, match="holds complex128"):
        ingest(tmp_path / "complex.npy", target, resolution_nm=(8, 8, 8), overwrite=True)
    with pytest.raises(VolumeError, match="has not finished writing it"):
        open_volume(target)
    assert ingest(source, target, resolution_nm=(8, 8, 8), **SMALL).resumed == 4  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [tiff_folder, hdf5, npy])
def test_memory_stays_bounded_whatever_the_size_of_the_source(make: Source, tmp_path: Path) -> None:
    """A copy of 32 MiB in blocks of 1 MiB allocates less than 5 MiB in Python and numpy."""
    source = make(tmp_path, np.random.default_rng(0).integers(0, 60000, (64, 512, 512), "uint16"))
    settings = {"resolution_nm": (8, 8, 8), "storage_chunk": (32, 64, 64), "memory_bytes": 2**20}
    tracemalloc.start()
    ingest(source, f"{tmp_path}/out", **settings)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 2**20


@pytest.mark.parametrize(
    ("memory_bytes", "shape"),
    [
        (1, (8, 8, 16)),
        (8 * 8 * 16 * 2 * 3, (8, 8, 48)),
        (8 * 8 * 64 * 2, (8, 8, 64)),
        (8 * 16 * 64 * 2 + 1, (8, 16, 64)),
        (2**40, (24, 40, 64)),
    ],
)
def test_a_block_is_as_many_whole_chunks_as_fit(memory_bytes: int, shape: tuple[int, int, int]) -> None:
    spec = VolumeSpec(BoundingBox.from_shape((21, 34, 55)), (8.0, 8.0, 8.0), DATA.dtype, None, (8, 8, 16))
    assert block_shape(spec, memory_bytes) == shape


@pytest.mark.parametrize("kind", ["zarr", "precomputed"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_other_types_become_uint8_by_the_percentiles_of_all_voxels(dtype: str, kind: str, tmp_path: Path) -> None:
    """The range is that of the whole source, not that of a block, and is kept in the new volume."""
    values = np.random.default_rng(0).permutation(64000).reshape(40, 40, 40)
    np.save(tmp_path / "a.npy", (values - (32000 if dtype == "int16" else 0)).astype(dtype))
    target = f"{kind}://{tmp_path}/out"
    small = {"storage_chunk": (16, 16, 16), "memory_bytes": 1}
    report = ingest(
        tmp_path / "a.npy",
        target,
        resolution_nm=(8, 8, 8),
        to="uint8",
        percentiles=(10, 90),
        **small,  # type: ignore[arg-type]
    )
    assert report.stretch
    found = open_volume(target).read(report.spec.bounds)
    assert np.abs(found - np.clip((values - 6400) * 255 / 51200, 0, 255)).max() <= 0.51
    assert "became 0 to 255" in str(report)
    metadata = json.loads((tmp_path / "out" / ("info" if kind == "precomputed" else "zarr.json")).read_text())
    kept = metadata.get("attributes", metadata)["intensity"]
    assert (kept["low"], kept["high"], kept["dtype"]) == (report.stretch.low, report.stretch.high, dtype)


def test_an_interrupted_conversion_keeps_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.arange(20**3, dtype="uint16").reshape(20, 20, 20))
    settings = {"resolution_nm": (8, 8, 8), "to": "uint8", "storage_chunk": (8, 8, 8), "memory_bytes": 1}
    whole = ingest(tmp_path / "a.npy", f"{tmp_path}/whole", **settings)  # type: ignore[arg-type]
    with pytest.raises(Interruption):
        ingest(tmp_path / "a.npy", f"{tmp_path}/out", on_progress=interrupt_at(3), **settings)  # type: ignore[arg-type]
    monkeypatch.setattr("pipeline.volumes.ingest.measure", None)
    report = ingest(tmp_path / "a.npy", f"{tmp_path}/out", **settings)  # type: ignore[arg-type]
    assert (report.resumed, report.stretch) == (3, whole.stretch)
    volumes = open_volume(f"{tmp_path}/out"), open_volume(f"{tmp_path}/whole")
    assert (volumes[0].read(report.spec.bounds) == volumes[1].read(report.spec.bounds)).all()


def test_values_that_are_not_finite_are_not_measured(tmp_path: Path) -> None:
    data = np.linspace(0, 1, 1000, dtype="float32").reshape(10, 10, 10)
    data[0, 0, :3] = np.nan, np.inf, -np.inf
    np.save(tmp_path / "a.npy", data)
    report = ingest(tmp_path / "a.npy", f"{tmp_path}/out", resolution_nm=(8, 8, 8), to="uint8", percentiles=(0, 100))
    found = open_volume(report.url).read(report.spec.bounds)
    assert list(found[0, 0, :3]) == [0, 255, 0]
    assert found[9, 9, 9] == 255


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"to": "uint16"}, "only uint8"),
        ({"percentiles": (0, 100)}, "add --to uint8"),
        ({"to": "uint8", "percentiles": (50, 50)}, "0 <= LOW < HIGH <= 100"),
        ({"to": "uint8", "percentiles": (-1, 50)}, "0 <= LOW < HIGH <= 100"),
    ],
)
def test_a_conversion_that_cannot_be_is_refused(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        ingest(npy(tmp_path), f"{tmp_path}/out", resolution_nm=(8, 8, 8), **settings)  # type: ignore[arg-type]


def test_an_image_without_a_range_is_not_converted(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((4, 4, 4), 7, "uint16"))
    with pytest.raises(VolumeError, match="has the value 7 at both percentiles"):
        ingest(tmp_path / "a.npy", f"{tmp_path}/out", resolution_nm=(8, 8, 8), to="uint8")
    assert not (tmp_path / "out").exists()


def test_blocks_that_no_machine_holds_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """The message gives the block, its memory and the option; that option works."""
    source, target = npy(tmp_path), f"{tmp_path}/out"
    huge = Mock(total=1000)
    with (
        patch.object(psutil, "virtual_memory", return_value=huge),
        pytest.raises(VolumeError, match=r"blocks of .* about 3 of them need .* GB of memory, .* a smaller --chunk"),
    ):
        ingest(source, target, resolution_nm=(8, 8, 8))
    assert not Path(target).exists()
    with patch.object(psutil, "virtual_memory", return_value=huge):
        assert ingest(source, target, resolution_nm=(8, 8, 8), storage_chunk=(4, 4, 4), memory_bytes=64).blocks > 1


def test_memory_that_ends_in_the_middle_is_called_so_and_the_ingest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = npy(tmp_path), f"{tmp_path}/out"
    small: dict[str, Any] = {"resolution_nm": (8, 8, 8), "storage_chunk": (4, 4, 4), "memory_bytes": 64}

    def lacking(*_: object) -> None:
        raise MemoryError("Unable to allocate 9 GiB")

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.volumes.ingest._copy", lacking)
        with pytest.raises(VolumeError, match=r"Unable to allocate 9 GiB.*a smaller --chunk"):
            ingest(source, target, **small)
    ingest(source, target, **small)
    assert open_volume(target)[...].any()
