"""TIFF images are read with their order of sections and voxel sizes, and broken ones are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pipeline.errors import CorruptError, VolumeError
from pipeline.volumes import open_volume
from pipeline.volumes.stack_names import missing_numbers, natural_key

DATA = np.random.default_rng(0).integers(0, 60000, (12, 9, 14), "uint16")


def sections(folder: Path, data: np.ndarray = DATA, name: str = "em_v2_s{}.tif", first: int = 1) -> str:
    folder.mkdir(exist_ok=True)
    for number, section in enumerate(data, first):
        tifffile.imwrite(folder / name.format(number), section, photometric="minisblack")
    return str(folder)


def everything(url: str) -> np.ndarray:
    volume = open_volume(url)
    return volume.read(volume.spec.bounds)


def test_sections_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Sections are sorted by number, so s2 comes before s10."""
    assert (everything(sections(tmp_path) + "#resolution=8,8,8") == DATA).all()
    assert sorted(["s10", "s9", "s009b", "s1"], key=natural_key) == ["s1", "s9", "s009b", "s10"]


def test_missing_sections_are_named(tmp_path: Path) -> None:
    sections(tmp_path)
    for number in (5, 8):
        (tmp_path / f"em_v2_s{number}.tif").unlink()
    with pytest.raises(VolumeError, match="lacks 2 of its numbered sections: 5, 8;"):
        open_volume(str(tmp_path))


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [([1], []), ([1, 2, 3], []), ([10, 40, 20], [30]), ([1, 3, 4], [2]), ([7, 7], [])],
)
def test_numbers_that_a_series_leaves_out_are_found(numbers: list[int], missing: list[int]) -> None:
    """The step of a series is the smallest that occurs."""
    assert missing_numbers(numbers) == missing


def test_mixed_shapes_and_types_are_named(tmp_path: Path) -> None:
    sections(tmp_path)
    tifffile.imwrite(tmp_path / "em_v2_s13.tif", DATA[0, :5], photometric="minisblack")
    with pytest.raises(
        VolumeError, match=r"sections of \(9, 14\) uint16, but 1 differ: em_v2_s13.tif page 0: \(5, 14\)"
    ):
        open_volume(str(tmp_path))
    tifffile.imwrite(tmp_path / "em_v2_s13.tif", DATA[0].astype("uint8"), photometric="minisblack")
    with pytest.raises(VolumeError, match=r"em_v2_s13.tif page 0: \(9, 14\) uint8"):
        open_volume(str(tmp_path))


def test_a_folder_of_multi_page_files_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        tifffile.imwrite(tmp_path / f"s{number}.tif", DATA[:3], photometric="minisblack")
    with pytest.raises(VolumeError, match="files of several pages"):
        open_volume(str(tmp_path))


def test_pixels_of_other_values_than_grey_or_colours_are_refused(tmp_path: Path) -> None:
    """Transparency, and two values without a meaning, are refused; channels of a microscope are split by the user."""
    for samples, kind in ((4, "rgb"), (2, "minisblack")):
        section = np.zeros((5, 6, samples), "uint8")
        tifffile.imwrite(tmp_path / "c.tif", section, photometric=kind, planarconfig="contig")
        with pytest.raises(VolumeError, match=rf"{samples} values a pixel \({kind.upper()}\).*make it grey"):
            open_volume(f"{tmp_path / 'c.tif'}#resolution=8,8,8")
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((2, 5, 6), "uint8"), imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(VolumeError, match="split channels and times"):
        open_volume(f"{tmp_path / 'i.tif'}#resolution=8,8,8")


def test_the_voxel_size_of_imagej_is_taken(tmp_path: Path) -> None:
    metadata: dict[str, Any] = {"spacing": 0.05, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "i.tif", DATA, imagej=True, resolution=(1 / 0.004, 1 / 0.008), metadata=metadata)
    volume = open_volume(str(tmp_path / "i.tif"))
    assert volume.spec.resolution_nm == pytest.approx((50.0, 8.0, 4.0), rel=1e-5)
    assert (volume.read(volume.spec.bounds) == DATA).all()


def test_a_large_imagej_stack_with_one_header_is_read(tmp_path: Path) -> None:
    """ImageJ writes a stack of more than 4 GiB as one page, with the other sections right behind it."""
    tifffile.imwrite(tmp_path / "i.tif", DATA, imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "i.tif") as file:
        first, start = file.pages[0], file.series[0].dataoffset
        text: Any = file.imagej_metadata
        description = f"ImageJ={text['ImageJ']}\nimages={len(DATA)}\nslices={len(DATA)}\n"
        assert first.shape == DATA.shape[1:]
        assert start
    with tifffile.TiffWriter(tmp_path / "one.tif", byteorder=">") as writer:
        writer.write(DATA[0], photometric="minisblack", description=description, metadata=None)
    with open(tmp_path / "one.tif", "ab") as file_:
        file_.write(DATA[1:].astype(">u2").tobytes())
    assert (everything(str(tmp_path / "one.tif") + "#resolution=8,8,8") == DATA).all()


def test_the_voxel_size_of_ome_is_taken(tmp_path: Path) -> None:
    metadata: dict[str, Any] = {"axes": "ZYX"}
    for axis, size, unit in (("Z", 0.05, "µm"), ("Y", 4.6, "nm"), ("X", 80.0, "Å")):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    tifffile.imwrite(tmp_path / "o.ome.tif", DATA, metadata=metadata)
    assert open_volume(str(tmp_path / "o.ome.tif")).spec.resolution_nm == (50.0, 4.6, 8.0)


def test_half_a_voxel_size_is_none(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "o.ome.tif", DATA, metadata={"axes": "ZYX", "PhysicalSizeX": 4.6, "PhysicalSizeXUnit": "nm"}
    )
    with pytest.raises(VolumeError, match="does not say how large"):
        open_volume(str(tmp_path / "o.ome.tif"))


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    url = sections(tmp_path)
    victim = tmp_path / "em_v2_s4.tif"
    victim.write_bytes(victim.read_bytes()[:300])
    with pytest.raises((VolumeError, CorruptError), match=r"cannot be opened|was cut off"):
        everything(url + "#resolution=8,8,8")
    victim.write_bytes(b"no tiff at all")
    with pytest.raises(VolumeError, match=r"em_v2_s4.tif cannot be opened as TIFF"):
        open_volume(url)


@pytest.mark.parametrize(
    "options",
    [{"imagej": True, "metadata": {"axes": "ZYX"}}, {"bigtiff": True}, {"metadata": None}, {"byteorder": ">"}],
)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])
def test_a_stack_that_was_cut_off_is_refused(options: dict[str, Any], share: float, tmp_path: Path) -> None:
    """Sections behind the end of the file are never left out in silence; the whole file is read."""
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, DATA, photometric="minisblack", **options)
    assert (everything(f"{file}#resolution=8,8,8") == DATA).all()
    file.write_bytes(file.read_bytes()[: round(share * file.stat().st_size)])
    with pytest.raises(VolumeError, match=r"was cut off|cannot be opened as TIFF"):
        open_volume(f"{file}#resolution=8,8,8")


def test_values_that_are_no_brightness_are_refused(tmp_path: Path) -> None:
    """A negative and a table of colours are named; a table of greys in order is read as it is."""
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256), np.uint16)
    greys = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
    tifffile.imwrite(tmp_path / "negative.tif", DATA, photometric="miniswhite")
    section = (DATA[0] % 256).astype(np.uint8)
    tifffile.imwrite(tmp_path / "colours.tif", section, photometric="palette", colormap=colours)
    tifffile.imwrite(tmp_path / "greys.tif", section, photometric="palette", colormap=greys)
    with pytest.raises(VolumeError, match="with black as 0"):
        open_volume(f"{tmp_path}/negative.tif#resolution=8,8,8")
    with pytest.raises(VolumeError, match="table of colours"):
        open_volume(f"{tmp_path}/colours.tif#resolution=8,8,8")
    assert (everything(f"{tmp_path}/greys.tif#resolution=8,8,8") == section).all()


def test_an_unknown_compression_names_the_remedy(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DATA[0], compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages.first.tags["Compression"].valueoffset
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[place : place + 2] = (34676).to_bytes(2, "little")  # SGI log: no reader has it
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(VolumeError, match="pip install imagecodecs"):
        open_volume(str(tmp_path / "a.tif"))


STAMPS = [f"sec{i:04d}_20210301{12 + i // 6:02d}{(i * 7) % 60:02d}.tif" for i in range(12)]
HEIGHTS = [f"slice_{i:05d}_z={0.0083 * i - 0.02:.4f}um.tif" for i in range(12)]


@pytest.mark.parametrize("names", [STAMPS, HEIGHTS, [f"w2_s{n}_v{n + 3}.TIF" for n in range(12)]])
def test_the_number_that_counts_sections_orders_them(names: list[str], tmp_path: Path) -> None:
    """Times, heights and versions beside the number of a section neither order the files nor count as missing ones."""
    for name, section in zip(names, DATA, strict=True):
        tifffile.imwrite(tmp_path / name, section, photometric="minisblack")
    assert (everything(f"{tmp_path}#resolution=8,8,8") == DATA).all()


@pytest.mark.parametrize(
    "names",
    [
        [f"z{i:02d}_ch{c:02d}.tif" for i in range(3) for c in range(2)],
        [f"{kind}_{i:02d}.tif" for kind in ("raw", "seg") for i in range(3)],
        ["z0.tif", "z1.tif", "z2.tif", "z1 copy.tif"],
        ["z0.tif", "z1.tif", "z2.tif", "z001.tif"],
        ["a1_b3.tif", "a2_b2.tif", "a3_b1.tif"],
        ["first.tif", "second.tif"],
    ],
)
def test_files_of_several_series_are_refused_with_a_remedy_that_works(names: list[str], tmp_path: Path) -> None:
    for name, section in zip(names, DATA, strict=False):
        tifffile.imwrite(tmp_path / name, section, photometric="minisblack")
    with pytest.raises(VolumeError, match=r"series|orders") as refusal:
        open_volume(f"{tmp_path}#resolution=8,8,8")
    assert "#order=names" in str(refusal.value)
    assert open_volume(f"{tmp_path}#resolution=8,8,8&order=names").spec.bounds.shape[0] == len(names)
    assert open_volume(f"{tmp_path}#resolution=8,8,8&files={names[0]}").spec.bounds.shape[0] == 1


def test_a_pattern_takes_one_series_of_a_folder(tmp_path: Path) -> None:
    sections(tmp_path, DATA, "raw_{}.tif")
    sections(tmp_path, DATA[::-1], "seg_{}.tif")
    assert (everything(f"{tmp_path}#resolution=8,8,8&files=seg_*") == DATA[::-1]).all()
    with pytest.raises(VolumeError, match=r"no file whose name is like x\*"):
        open_volume(f"{tmp_path}#resolution=8,8,8&files=x*")


def test_ome_says_which_page_is_which_section(tmp_path: Path) -> None:
    """Pages that are stored from the last section to the first are read in the order of the metadata."""
    depth, height, width = DATA.shape
    places = "".join(f'<TiffData IFD="{i}" FirstZ="{depth - 1 - i}" PlaneCount="1"/>' for i in range(depth))
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        f'DimensionOrder="XYZCT" Type="uint16" SizeX="{width}" SizeY="{height}" SizeZ="{depth}" SizeC="1" SizeT="1">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{places}</Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for section in DATA[::-1]:
            description, xml = xml, ""
            file.write(section, description=description or None, metadata=None, photometric="minisblack")
    assert (everything(f"{tmp_path}/a.ome.tif#resolution=8,8,8") == DATA).all()


def test_a_file_of_several_images_is_refused(tmp_path: Path) -> None:
    """Nothing says which of two images of equal shape is meant."""
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for data in (DATA, DATA[::-1]):
            file.write(data, photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(VolumeError, match="holds 2 images"):
        open_volume(f"{tmp_path}/a.ome.tif#resolution=8,8,8")


def test_tiles_of_three_dimensions_are_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 32, 32), "uint8"), tile=(16, 16, 16), volumetric=True)
    with pytest.raises(VolumeError, match="three-dimensional tiles"):
        open_volume(f"{tmp_path}/a.tif#resolution=8,8,8")
