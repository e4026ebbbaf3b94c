"""A string opens the volume that it names, or an error says why there is none."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import ConfigError, CorruptError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.registry import load
from pipeline.volumes import VOLUMES, VolumeSpec, create_volume, open_volume, spec_like
from pipeline.volumes.location import parse_location
from pipeline.volumes.memory import delete_memory_volume

SPEC = VolumeSpec(BoundingBox.from_shape((8, 9, 10)), (8.0, 8.0, 8.0), np.dtype("uint8"), None, (4, 4, 4))
DATA = np.arange(720, dtype="uint8").reshape(8, 9, 10)


@pytest.mark.parametrize(
    ("url", "base", "kind"),
    [
        ("/data/a.zarr/", "/data/a.zarr", None),
        ("s3://bucket/a#mip=1", "s3://bucket/a", None),
        ("precomputed://gs://bucket/layer/", "gs://bucket/layer", "precomputed"),
        ("precomputed:///data/layer", "/data/layer", "precomputed"),
        ("zarr://https://host/a.zarr", "https://host/a.zarr", "zarr"),
        ("file:///data/x.h5:group/raw", "file:///data/x.h5", "hdf5"),
        ("x.HDF5", "x.HDF5", "hdf5"),
        ("raw.npy", "raw.npy", "npy"),
        ("stack.ome.tiff", "stack.ome.tiff", "tiff"),
        ("memory://name", "name", "memory"),
    ],
)
def test_a_url_names_place_and_format(url: str, base: str, kind: str | None) -> None:
    location = parse_location(url)
    assert (location.base, location.format) == (base, kind)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/a.zarr", "unknown kind of address ftp://"),
        ("a.zarr#level=1", "unknown option 'level' after #; there are mip, resolution, offset, axes"),
        ("a.npy#resolution=8,8", "resolution is '8,8'; it must be three numbers z,y,x"),
        ("a.npy#resolution=8,8,nan", "resolution is '8,8,nan'; it must be three numbers z,y,x"),
        ("a.npy#resolution=8,8,8&offset=inf,0,0", "offset is 'inf,0,0'; it must be three numbers z,y,x"),
        ("a.npy#resolution=8,0,8", r"voxels of \(8.0, 0.0, 8.0\) nm \(z, y, x\); all three must be positive"),
        ("a.npy#resolution=8,8,8&mip=1", "mip is for zarr and precomputed, not for npy; leave it out"),
        ("stack.tif#axes=xyz", "axes is for zarr and hdf5 and npy, not for tiff; leave it out"),
        ("one.zarr/0#mip=1", "is one array, without levels; leave mip=1 out"),
        ("one.zarr#mip=²", "mip is '²'; it must be a whole number"),
        ("memory://nothing-here", "does not exist in this process"),
        ("no/such/folder.zarr", "folder.zarr does not exist; a volume is a folder with zarr.json"),
        ("no/such/file.h5:raw", "does not exist; correct the path"),
        ("no/such/file.npy", "does not exist on this machine"),
        ("no/such/file.tif", "does not exist on this machine"),
        ("s3://bucket/file.h5:raw", "copy it first"),
    ],
)
def test_what_cannot_be_opened_is_named_with_a_remedy(
    url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", DATA)
    create_volume("one.zarr", SPEC)
    with pytest.raises((VolumeError, ConfigError), match=message):
        open_volume(url)


def test_relative_paths_and_file_urls_name_the_same_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("zarr", "precomputed"):
        create_volume(f"out/{kind}", SPEC, format=kind).write(SPEC.bounds, DATA)
        for url in (
            f"out/{kind}",
            f"file://{tmp_path}/out/{kind}",
            f"{kind}://out/{kind}",
            str(tmp_path / "out" / kind),
        ):
            assert (open_volume(url).read(SPEC.bounds) == DATA).all()


def test_a_volume_of_another_format_is_not_replaced(tmp_path: Path) -> None:
    create_volume(str(tmp_path / "a"), SPEC)
    with pytest.raises(VolumeError, match="holds a zarr volume, so no precomputed can be made"):
        create_volume(str(tmp_path / "a"), SPEC, format="precomputed", overwrite=True)


def test_read_only_formats_cannot_be_created_or_written(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DATA)
    with pytest.raises(VolumeError, match=r"npy volumes such as .* are only read"):
        create_volume(str(tmp_path / "b.npy"), SPEC)
    with pytest.raises(VolumeError, match="can only be read"):
        open_volume(f"{tmp_path}/a.npy#resolution=8,8,8", mode="r+")
    with pytest.raises(VolumeError, match="no volume format 'jpg'; there are zarr, precomputed"):
        create_volume(str(tmp_path / "c"), SPEC, format="jpg")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (spec_like(SPEC, channels=1), "channels is 1; one channel is a plain volume"),
        (spec_like(SPEC, dtype=bool), "dtype is bool"),
        (spec_like(SPEC, storage_chunk=(0, 4, 4)), "storage_chunk"),
        (spec_like(SPEC, storage_chunk=(10**12, 10**12, 10**12)), "chunks of at most 2,147,483,647 bytes"),
        (spec_like(SPEC, storage_shard=(8, 8, 6)), "multiple of storage_chunk"),
        (spec_like(SPEC, storage_chunk=(4, 4, 4), storage_shard=(10**8, 4, 10**8)), "held in memory as a whole"),
        (VolumeSpec(SPEC.bounds, (8.0, 0.0, 8.0), SPEC.dtype), "resolution_nm"),
        (VolumeSpec(BoundingBox((0, 0, 0), (0, 1, 1)), (8.0, 8.0, 8.0), SPEC.dtype), "bounds"),
    ],
)
def test_impossible_specifications_are_refused(spec: VolumeSpec, message: str, tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=message):
        create_volume(str(tmp_path / "a"), spec)


def test_a_specification_like_another_keeps_voxels_and_takes_the_rest() -> None:
    volume = create_volume("memory://like", SPEC)
    found = spec_like(volume, dtype="uint64", channels=3, storage_chunk=(8, 8, 8), storage_shard=(16, 8, 8))
    assert found == VolumeSpec(SPEC.bounds, SPEC.resolution_nm, np.dtype("uint64"), 3, (8, 8, 8), (16, 8, 8))
    assert spec_like(found).channels is None
    delete_memory_volume("like")


def test_hdf5_attributes_of_the_file_count_for_its_datasets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["resolution_nm"] = [50.0, 4.6, 4.6]
        file.attrs["axes"] = "xyz (as the microscope wrote them)"
        file["raw"] = DATA.T
        file["names"] = np.arange(3)
    volume = open_volume(str(tmp_path / "a.h5"))
    assert volume.spec.resolution_nm == (50.0, 4.6, 4.6)
    assert (volume.read(SPEC.bounds) == DATA).all()


def test_hdf5_without_a_dataset_name_lists_the_datasets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["labels"], file["volumes/raw"] = DATA, DATA
    with pytest.raises(VolumeError, match=r"holds labels, volumes/raw: write .*a.h5:labels"):
        open_volume(f"{tmp_path}/a.h5:image")
    (tmp_path / "b.h5").write_bytes(b"not hdf5")
    with pytest.raises(VolumeError, match="cannot be opened as HDF5"):
        open_volume(f"{tmp_path}/b.h5:raw")


def test_the_url_may_place_a_volume_that_says_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([DATA, DATA]).transpose(1, 2, 3, 0))
    volume = open_volume(f"{tmp_path}/a.npy#axes=zyxc&resolution=50,4.6,4.6&offset=1,-2,3")
    assert volume.spec.bounds == SPEC.bounds.translate((1, -2, 3))
    assert volume.spec.channels == 2
    assert (volume.read(volume.spec.bounds)[1] == DATA).all()
    with pytest.raises(VolumeError, match="say the order by adding #axes"):
        open_volume(f"{tmp_path}/a.npy#axes=zy")


@pytest.mark.parametrize("name", VOLUMES)
def test_a_row_names_a_class_that_can_do_what_the_row_says(name: str) -> None:
    """Each row's class can open, and create if the row says so."""
    made = load(VOLUMES[name].path)
    assert {"open"} | ({"exists", "create"} if VOLUMES[name].creatable else set()) == {
        method for method in ("open", "exists", "create") if hasattr(made, method)
    }


def test_every_format_is_found_under_its_name(tmp_path: Path) -> None:
    for name in VOLUMES:
        with pytest.raises(VolumeError, match=r"dtype is bool|only read"):
            create_volume(str(tmp_path / "a"), spec_like(SPEC, dtype=bool), format=name)


def test_a_url_of_one_format_and_a_request_for_another_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="leave one of the two out"):
        create_volume(f"precomputed://{tmp_path}/a", SPEC, format="zarr")


def test_real_tissue_is_opened_from_hdf5_as_it_is(shared_data: Path) -> None:
    volume = open_volume(f"{shared_data}/fib25_train2_affinities.h5:affinities")
    assert (volume.spec.channels, volume.spec.resolution_nm) == (3, (8.0, 8.0, 8.0))
    box = BoundingBox((30, 40, 50), (34, 47, 59))
    with h5py.File(shared_data / "fib25_train2_affinities.h5") as file:
        assert (volume.read(box) == file["affinities"][:, 30:34, 40:47, 50:59]).all()


@pytest.mark.parametrize(
    ("url", "base", "options"),
    [
        ("mouse #3/a.zarr", "mouse #3/a.zarr", {}),
        ("mouse #3/a.zarr#mip=1", "mouse #3/a.zarr", {"mip": "1"}),
        ("a=1#b=2/c.zarr", "a=1#b=2/c.zarr", {}),
        ("scan#mip=1#", "scan#mip=1", {}),
        ("a #3.zarr#", "a #3.zarr", {}),
    ],
)
def test_a_number_sign_in_a_path_stays_in_it(url: str, base: str, options: dict[str, str]) -> None:
    location = parse_location(url)
    assert (location.base, dict(location.options)) == (base, options)


def test_an_option_is_given_once_and_only_where_a_volume_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mip is given twice, as 0 and 1"):
        parse_location("a.zarr#mip=0&mip=1")
    with pytest.raises(ConfigError, match="leave them out where one is made"):
        create_volume(f"{tmp_path}/a#resolution=8,8,8", SPEC)


def test_a_file_url_may_hold_escaped_characters(tmp_path: Path) -> None:
    np.save(tmp_path / "my #1.npy", DATA)
    assert open_volume(f"file://{tmp_path}/my%20%231.npy#resolution=8,8,8").spec.bounds == SPEC.bounds


def test_hdf5_errors_name_their_cause(tmp_path: Path) -> None:
    """A filter that is not installed, damaged bytes and a file that is no HDF5 have different remedies."""
    with h5py.File(tmp_path / "filter.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk(DATA.shape)
        plan.set_filter(32004, h5py.h5z.FLAG_OPTIONAL, (0,))
        h5py.h5d.create(file.id, b"raw", h5py.h5t.STD_U8LE, h5py.h5s.create_simple(DATA.shape), plan)
    with pytest.raises(VolumeError, match=r"filter 32004.*pip install hdf5plugin"):
        open_volume(f"{tmp_path}/filter.h5#resolution=8,8,8")
    with h5py.File(tmp_path / "gz.h5", "w") as file:
        chunk = file.create_dataset("raw", data=DATA, compression="gzip", chunks=DATA.shape).id.get_chunk_info(0)
    content = bytearray((tmp_path / "gz.h5").read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (tmp_path / "gz.h5").write_bytes(content)
    with pytest.raises(CorruptError, match="damaged data"):
        open_volume(f"{tmp_path}/gz.h5#resolution=8,8,8").read(SPEC.bounds)
    (tmp_path / "no.h5").write_bytes(b"no")
    with pytest.raises(VolumeError, match="no HDF5 file: correct the path"):
        open_volume(f"{tmp_path}/no.h5")
