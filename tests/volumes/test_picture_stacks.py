"""PNG and JPEG files are read as they are, and refused in words where that cannot be."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from pipeline.errors import ConfigError, CorruptError, PetasegError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes import open_volume
from pipeline.volumes.ingest import ingest
from pipeline.volumes.picture_files import look_at

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 12), "uint8")
COLOUR = RNG.integers(0, 256, (9, 12, 3), "uint8")
SIZE = "#resolution=40,8,8"
BRIEF = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def everything(url: str) -> np.ndarray:
    volume = open_volume(url)
    return volume.read(volume.bounds)


@BRIEF
@given(
    sides=st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9)),
    kind=st.sampled_from(["uint8", "uint16", "colour"]),
    first=st.integers(0, 120),
    width=st.integers(0, 5),
    seed=st.integers(0, 999),
)
def test_a_png_stack_of_any_shape_and_type_is_read_in_order(
    sides: tuple[int, int, int], kind: str, first: int, width: int, seed: int
) -> None:
    """Numbers may have leading zeros or none, and begin anywhere: section 9 comes before section 10."""
    rng = np.random.default_rng(seed)
    shape = (*sides, 3) if kind == "colour" else sides
    data = rng.integers(0, 256, shape, "uint8") if kind != "uint16" else rng.integers(0, 2**16, shape, "uint16")
    with TemporaryDirectory() as folder:
        for number, section in enumerate(data, first):
            Image.fromarray(section).save(f"{folder}/s{number:0{width}d}.png")
        volume = open_volume(folder + SIZE)
        assert (volume.dtype, volume.spec.channels) == (data.dtype, 3 if kind == "colour" else None)
        found = volume.read(volume.bounds)
        assert (found == (np.moveaxis(data, -1, 0) if kind == "colour" else data)).all()
        corner = BoundingBox((sides[0] - 1, sides[1] // 2, 0), sides)
        assert (volume.read(corner) == found[(..., *corner.slices())]).all()


def test_jpegs_are_read_as_they_are_decoded(tmp_path: Path) -> None:
    """JPEG loses detail when it is written; what is in the file is read, grey or colour."""
    for name, section in (("grey.jpg", GREY), ("colour.jpeg", COLOUR)):
        Image.fromarray(section).save(tmp_path / name, quality=90)
        decoded = np.asarray(Image.open(tmp_path / name))
        found = everything(f"{tmp_path / name}{SIZE}")
        assert found.dtype == np.uint8
        assert (found == (np.moveaxis(decoded[None], -1, 0) if decoded.ndim == 3 else decoded)).all()


def test_few_bits_of_grey_become_eight(tmp_path: Path) -> None:
    """White is 255 in pictures of one bit, as it is in those of eight."""
    bits = GREY > 128
    Image.fromarray(bits).save(tmp_path / "a.png")
    found = everything(f"{tmp_path / 'a.png'}{SIZE}")
    assert found.dtype == np.uint8
    assert (found[0] == bits * 255).all()


def palette(path: Path) -> None:
    Image.fromarray(COLOUR).quantize(16).save(path)


def transparent_colour(path: Path) -> None:
    Image.fromarray(COLOUR).convert("RGBA").save(path)


def transparent_grey(path: Path) -> None:
    Image.fromarray(GREY).convert("LA").save(path)


def one_transparent_value(path: Path) -> None:
    Image.fromarray(GREY).save(path, transparency=7)


def moving(path: Path) -> None:
    Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(255 - GREY)])


def printed(path: Path) -> None:
    Image.fromarray(COLOUR).convert("CMYK").save(path, "JPEG")


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(path, "JPEG", exif=exif)


def sixteen_bits_of_colour(path: Path) -> None:
    """Written chunk by chunk: the library writes colours with 8 bits only."""
    header = (12).to_bytes(4, "big") + (9).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    rows = b"".join(b"\0" + bytes(12 * 6) for _ in range(9))
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            PngImagePlugin.putchunk(file, name, data)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (palette, "has a table of colours.*-type Grayscale"),
        (transparent_colour, r"transparent pixels \(mode RGBA\).*-alpha off"),
        (transparent_grey, r"transparent pixels \(mode LA\)"),
        (one_transparent_value, "transparent pixels"),
        (moving, "holds 2 pictures"),
        (printed, "pixels of kind CMYK.*-colorspace sRGB"),
        (turned, r"EXIF orientation 6.*-auto-orient"),
        (sixteen_bits_of_colour, "16 bits for each of its colours.*-depth 8"),
        (lambda path: path.write_bytes(b"GIF89a"), "neither PNG nor JPEG"),
        (lambda path: path.write_bytes(b""), "neither PNG nor JPEG"),
    ],
)
def test_pictures_whose_values_would_not_be_those_of_the_file_are_refused(
    write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.png")
    with pytest.raises(VolumeError, match=message):
        open_volume(f"{tmp_path / 'a.png'}{SIZE}")


def test_damaged_pixels_are_an_error_and_never_black(tmp_path: Path) -> None:
    """A cut or changed file is refused when it is opened, or when it is read; for both kinds of picture."""
    for name in ("a.png", "a.jpg"):
        path = tmp_path / name
        Image.fromarray(RNG.integers(0, 256, (64, 64), "uint8")).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises((CorruptError, VolumeError), match=r"damaged|cannot be opened"):
            everything(f"{path}{SIZE}")
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises((CorruptError, VolumeError), match=r"damaged|cannot be opened"):
        everything(f"{path}{SIZE}")


@BRIEF
@given(st.sampled_from(["a.png", "a.jpg"]), st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 10**6))
def test_files_with_any_wrong_bytes_are_read_or_refused(name: str, place: int, value: int, cut: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        Image.fromarray(COLOUR).save(path)
        data = bytearray(path.read_bytes())
        data[place % len(data)] = value
        path.write_bytes(bytes(data[: max(1, cut % (2 * len(data)))]))
        with suppress(PetasegError):
            everything(f"{path}{SIZE}")


def test_sections_larger_than_a_photograph_are_opened(tmp_path: Path) -> None:
    """A section of 200 million pixels is no attack on the reader."""
    Image.new("1", (20_000, 10_000)).save(tmp_path / "a.png")
    assert look_at(tmp_path / "a.png").kind.shape == (10_000, 20_000)


def test_stacks_obey_the_rules_of_tiff_stacks(tmp_path: Path) -> None:
    """Missing numbers and mixed kinds are named; ``files=`` takes one series; pictures state no voxel size."""
    for number in (1, 2, 4):
        Image.fromarray(GREY).save(tmp_path / f"raw_{number}.png")
    with pytest.raises(VolumeError, match="lacks 1 of its numbered sections: 3;"):
        open_volume(str(tmp_path))
    Image.fromarray(COLOUR).save(tmp_path / "raw_3.png")
    with pytest.raises(VolumeError, match=r"sections of \(9, 12\) uint8, but 1 differ: raw_3.png: .* in colour"):
        open_volume(str(tmp_path))
    with pytest.raises(VolumeError, match="does not say how large its voxels are"):
        open_volume(f"{tmp_path}#files=raw_[12].png")
    assert open_volume(f"{tmp_path}{SIZE}&files=raw_[12].png").shape == (2, 9, 12)


def test_a_folder_of_two_formats_is_refused_with_a_pattern_that_opens_it(tmp_path: Path) -> None:
    """A preview beside TIFF files is neither read as a section nor left out in silence."""
    Image.fromarray(GREY).save(tmp_path / "s1.tif")
    Image.fromarray(255 - GREY).save(tmp_path / "preview.jpg")
    with pytest.raises(VolumeError, match=r"several formats, tiff .* and pictures .*#files=\*.tif"):
        open_volume(f"{tmp_path}{SIZE}")
    assert (everything(f"{tmp_path}{SIZE}&files=*.tif")[0] == GREY).all()
    assert open_volume(f"{tmp_path}{SIZE}&files=*.jpg").shape == (1, 9, 12)


def test_one_channel_of_a_picture_is_chosen_by_its_number(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    url = f"{tmp_path / 'a.png'}{SIZE}"
    for channel in range(3):
        assert (everything(f"{url}&channel={channel}")[0] == COLOUR[..., channel]).all()
    for wrong in ("3", "-1", "red"):
        with pytest.raises(ConfigError, match=f"channel is '{wrong}'; it must be a whole number from 0 to 2"):
            open_volume(f"{url}&channel={wrong}")
    Image.fromarray(GREY).save(tmp_path / "b.png")
    with pytest.raises(VolumeError, match="has no channels to choose from; leave channel=0 out"):
        open_volume(f"{tmp_path / 'b.png'}{SIZE}&channel=0")


def test_a_picture_stack_is_ingested(tmp_path: Path) -> None:
    """Grey, and one channel of colour, become zarr volumes with the same voxels."""
    (tmp_path / "stack").mkdir()
    for number in range(3):
        Image.fromarray(np.roll(COLOUR, number, 0)).save(tmp_path / "stack" / f"{number}.png")
    ingest(tmp_path / "stack", f"{tmp_path}/all.zarr", resolution_nm=(40, 8, 8), colours=True)
    ingest(f"{tmp_path}/stack#channel=2", f"{tmp_path}/one.zarr", resolution_nm=(40, 8, 8))
    expected = np.stack([np.roll(COLOUR, number, 0) for number in range(3)])
    assert (everything(f"{tmp_path}/all.zarr") == np.moveaxis(expected, -1, 0)).all()
    assert (everything(f"{tmp_path}/one.zarr") == expected[..., 2]).all()


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_files_in_colour_are_ingested_only_if_that_is_said(ending: str, tmp_path: Path) -> None:
    """Without a word they are refused with both remedies, and both of them work."""
    file, target = tmp_path / f"a.{ending}", str(tmp_path / "a.zarr")
    Image.fromarray(COLOUR).save(file)
    with pytest.raises(VolumeError, match=r"in colour \(3 channels\).*#channel=1.*--colours"):
        ingest(file, target, resolution_nm=(8, 8, 8))
    assert not (tmp_path / "a.zarr").exists()
    assert ingest(f"{file}#channel=1", target, resolution_nm=(8, 8, 8)).spec.channels is None
    assert (everything(target)[0] == COLOUR[..., 1]).all()
    ingest(file, f"{tmp_path}/b.zarr", resolution_nm=(8, 8, 8), colours=True)
    assert (everything(f"{tmp_path}/b.zarr")[:, 0] == np.moveaxis(COLOUR, -1, 0)).all()
