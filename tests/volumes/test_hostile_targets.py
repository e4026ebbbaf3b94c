"""Whatever the target of an ingest is, nothing that petaseg did not make is deleted or changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.errors import ConfigError, PetasegError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes import VolumeSpec, create_volume, open_volume
from pipeline.volumes.ingest import ingest
from pipeline.volumes.places import overlap, real

DATA = np.random.default_rng(0).integers(1, 255, (9, 10, 11), "uint8")
SPEC = VolumeSpec(BoundingBox.from_shape(DATA.shape), (8.0, 8.0, 8.0), DATA.dtype, None, (4, 5, 6))


def volume(url: Path | str, *, kind: str = "zarr") -> Path:
    """A volume that petaseg made, full of voxels."""
    create_volume(str(url), SPEC, format=kind).write(SPEC.bounds, DATA)
    return Path(url)


def state(folder: Path) -> dict[str, str]:
    """Every file, link and folder below a folder, with its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def a_file(place: Path) -> None:
    place.write_text("mine")


def a_link_to_nothing(place: Path) -> None:
    place.symlink_to(place.parent / "nowhere")


def a_folder_of_mine(place: Path) -> None:
    place.mkdir()
    (place / "thesis.tex").write_text("mine")


def a_project_of_many_folders(place: Path) -> None:
    (place / "0" / "deep" / "down").mkdir(parents=True)
    (place / "0" / "deep" / "down" / "raw.dat").write_text("mine")


def a_zarr_array_of_another_program(place: Path) -> None:
    zarr.create_array(place, shape=(4, 4, 4), dtype="u1", zarr_format=2)[...] = 7


def an_array_called_0_in_a_folder(place: Path) -> None:
    zarr.create_array(place / "0", shape=(4, 4, 4), dtype="u1", zarr_format=3)[...] = 7


def an_image_of_another_program(place: Path) -> None:
    volume(place)
    for name in ("zarr.json", "0/zarr.json"):
        metadata = json.loads((place / name).read_text())
        del metadata["attributes"]["petaseg"]
        (place / name).write_text(json.dumps(metadata))


def a_layer_of_another_program(place: Path) -> None:
    volume(place, kind="precomputed")
    info = json.loads((place / "info").read_text())
    del info["petaseg"]
    (place / "info").write_text(json.dumps(info))


def an_info_that_is_no_layer(place: Path) -> None:
    place.mkdir()
    (place / "info").write_text("call me tomorrow")


def a_volume_with_a_note(place: Path) -> None:
    (volume(place) / "NOTES.txt").write_text("mine")


def a_volume_with_a_coarser_level(place: Path) -> None:
    shutil.copytree(volume(place) / "0", place / "1")


def a_volume_with_a_linked_array(place: Path) -> None:
    elsewhere = volume(place.parent / "elsewhere.zarr")
    volume(place)
    shutil.rmtree(place / "0")
    (place / "0").symlink_to(elsewhere / "0")


HOSTILE: list[Callable[[Path], None]] = [
    a_file,
    a_link_to_nothing,
    a_folder_of_mine,
    a_project_of_many_folders,
    a_zarr_array_of_another_program,
    an_array_called_0_in_a_folder,
    an_image_of_another_program,
    a_layer_of_another_program,
    an_info_that_is_no_layer,
    a_volume_with_a_note,
    a_volume_with_a_coarser_level,
    a_volume_with_a_linked_array,
]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["zarr", "precomputed"])
@pytest.mark.parametrize("make", HOSTILE)
def test_what_petaseg_did_not_make_is_refused_and_stays(
    tmp_path: Path, make: Callable[[Path], None], kind: str, overwrite: bool
) -> None:
    """An ingest onto anything of somebody else's is refused in words, and not one byte or link differs after it."""
    np.save(tmp_path / "source.npy", DATA)
    make(tmp_path / "target")
    before = state(tmp_path)
    with pytest.raises(PetasegError, match=r"choose|delete|overwrite"):
        ingest(tmp_path / "source.npy", f"{tmp_path}/target", resolution_nm=(8, 8, 8), format=kind, overwrite=overwrite)
    assert state(tmp_path) == before


def test_an_equal_volume_of_another_program_is_not_written_on(tmp_path: Path) -> None:
    """A volume of the same extent and type that is not marked is no volume to go on with."""
    mine = zarr.create_array(str(tmp_path / "a"), data=DATA, chunks=SPEC.storage_chunk, zarr_format=2)
    mine.attrs["resolution_nm"] = [8, 8, 8]
    before = state(tmp_path)
    with pytest.raises(VolumeError, match="does not say that petaseg made it"):
        create_volume(f"{tmp_path}/a", SPEC)
    assert state(tmp_path) == before


@pytest.mark.parametrize("target", ["b.zarr#mip=1", "b.zarr#resolution=8,8,8", "gone.h5:raw", "b.npy"])
def test_a_target_that_is_refused_leaves_nothing(tmp_path: Path, target: str) -> None:
    """No marker and no folder stay of an ingest whose target cannot be made."""
    np.save(tmp_path / "source.npy", DATA)
    with pytest.raises(PetasegError, match=r"leave them out|only read"):
        ingest(tmp_path / "source.npy", f"{tmp_path}/{target}", resolution_nm=(8, 8, 8))
    assert [path.name for path in tmp_path.iterdir()] == ["source.npy"]


@pytest.mark.parametrize("kind", ["zarr", "precomputed"])
def test_what_petaseg_made_is_replaced(tmp_path: Path, kind: str) -> None:
    """A marked volume is replaced, also behind a link, and the link stays."""
    np.save(tmp_path / "source.npy", DATA[::-1].copy())
    volume(tmp_path / "real", kind=kind)
    (tmp_path / "link").symlink_to("real")
    for target in ("real", "link"):
        ingest(tmp_path / "source.npy", f"{tmp_path}/{target}", resolution_nm=(4, 4, 4), format=kind, overwrite=True)
        assert (open_volume(f"{tmp_path}/real").read(SPEC.bounds) == DATA[::-1]).all()
    assert os.readlink(tmp_path / "link") == "real"


def test_a_half_made_volume_is_made_again(tmp_path: Path) -> None:
    """The array that a killed creation has left without its group is replaced, since it is marked."""
    (volume(tmp_path / "target") / "zarr.json").unlink()
    assert not create_volume(f"{tmp_path}/target", SPEC).read(SPEC.bounds).any()


def test_a_folder_that_may_not_be_changed_is_refused_and_stays(tmp_path: Path) -> None:
    """A volume in a read-only folder stays as it is."""
    np.save(tmp_path / "source.npy", DATA)
    volume(tmp_path / "shelf" / "target")
    (tmp_path / "shelf").chmod(0o555)
    before = state(tmp_path)
    try:
        if os.access(tmp_path / "shelf", os.W_OK):  # root may write everywhere: then it is replaced whole
            ingest(tmp_path / "source.npy", f"{tmp_path}/shelf/target", resolution_nm=(8, 8, 8), overwrite=True)
            assert (open_volume(f"{tmp_path}/shelf/target").read(SPEC.bounds) == DATA).all()
        else:
            with pytest.raises(PetasegError):
                ingest(tmp_path / "source.npy", f"{tmp_path}/shelf/target", resolution_nm=(8, 8, 8), overwrite=True)
            assert state(tmp_path) == before
    finally:
        (tmp_path / "shelf").chmod(0o755)


# -- a target and its source ------------------------------------------------------------------------------------------

ONTO_ITSELF = {
    "the same path": ("im.zarr", "im.zarr"),
    "a slash more": ("im.zarr", "im.zarr/"),
    "relative parts": ("im.zarr", "sub/../im.zarr"),
    "a file URL": ("im.zarr", "file://{folder}/im.zarr"),
    "a file URL of the source": ("file://{folder}/im.zarr", "im.zarr"),
    "a scheme": ("im.zarr", "zarr://{folder}/im.zarr"),
    "options": ("im.zarr#resolution=4,4,4", "im.zarr"),
    "a level of the target": ("im.zarr/0", "im.zarr"),
    "within the source": ("im.zarr", "im.zarr/copy"),
    "over an array of the source": ("im.zarr", "im.zarr/0"),
    "the source is a link": ("link.zarr", "im.zarr"),
    "the target is a link": ("im.zarr", "link.zarr"),
    "a link to a folder above": ("im.zarr", "here/im.zarr"),
    "a source whose array is linked": ("borrowed.zarr", "im.zarr"),
    "the folder that holds the source": ("im.zarr", "."),
    "a layer": ("layer", "precomputed://{folder}/layer"),
    "another format there": ("im.zarr", "precomputed://{folder}/im.zarr"),
    "a folder of sections": ("stack", "stack"),
    "a file": ("img.npy", "img.npy"),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ONTO_ITSELF)
def test_a_source_is_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, overwrite: bool
) -> None:
    """However the same files are named, an ingest onto its source is refused, and the source stays."""
    monkeypatch.chdir(tmp_path)
    volume(tmp_path / "im.zarr")
    volume(tmp_path / "layer", kind="precomputed")
    np.save("img.npy", DATA)
    Path("sub").mkdir()
    Path("stack").mkdir()
    Path("stack/z0.tif").write_bytes(b"II*")
    Path("link.zarr").symlink_to("im.zarr")
    Path("here").symlink_to(tmp_path)
    shutil.copytree("im.zarr", "borrowed.zarr")
    shutil.rmtree("borrowed.zarr/0")
    Path("borrowed.zarr/0").symlink_to(tmp_path / "im.zarr" / "0")
    before = state(tmp_path)
    source, target = (text.format(folder=tmp_path) for text in ONTO_ITSELF[name])
    with pytest.raises(ConfigError, match="name a target apart from the source"):
        ingest(source, target, storage_chunk=(3, 3, 3), overwrite=overwrite)
    assert state(tmp_path) == before


def test_places_in_buckets_are_compared_without_relative_parts() -> None:
    """A bucket's folders overlap if one holds the other; names that only begin alike do not."""
    assert overlap(real("s3://bucket/a//im.zarr"), real("s3://bucket/b/../a/im.zarr/")) == "is"
    assert overlap(real("s3://bucket/a/im.zarr/0"), real("s3://bucket/a/im.zarr")) == "lies in"
    assert overlap(real("s3://https://host/bucket/a"), real("s3://https://host/bucket/a/b")) == "holds"
    assert not overlap(real("s3://bucket/a/im.zarr"), real("s3://bucket/a/im.zarr2"))
    assert not overlap(real("s3://bucket/a"), real("gs://bucket/a"))
    assert not overlap(real("s3://bucket/a"), real("/bucket/a"))


def test_objects_of_others_in_a_bucket_stay() -> None:
    """In a bucket, where no folder can be renamed, foreign objects are refused as well."""
    url = "mem://bucket/hostile/target"
    from pipeline.storage import ObjectStore

    ObjectStore(url).put("0/c/notes.txt", b"mine")
    with pytest.raises(VolumeError, match="other things in it"):
        create_volume(url, SPEC, overwrite=True)
    assert ObjectStore(url).list() == ["0/c/notes.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("data", [b"mine", b"{}", b"[1]", b'{"blocks_done": 3}'])
def test_a_file_with_the_name_of_a_marker_stays(data: bytes, overwrite: bool, tmp_path: Path) -> None:
    """``--overwrite`` deletes the marker of an ingest, and no file of somebody's that has its name."""
    np.save(tmp_path / "a.npy", np.ones((4, 4, 4), "uint8"))
    place = tmp_path / "b.zarr.ingest.json"
    place.write_bytes(data)
    with pytest.raises(VolumeError, match=r"or not petaseg's .* delete that file yourself"):
        ingest(f"{tmp_path}/a.npy", f"{tmp_path}/b.zarr", resolution_nm=(8, 8, 8), overwrite=overwrite)
    assert place.read_bytes() == data
    place.unlink()
    ingest(f"{tmp_path}/a.npy", f"{tmp_path}/b.zarr", resolution_nm=(8, 8, 8), overwrite=overwrite)
