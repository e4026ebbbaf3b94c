"""Levels of a run are those of a plain pyramid of the whole volume, whatever the chunks are and whatever is killed."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.runs.run import Run
from pipeline.runs.verify import verify_run
from pipeline.stages import opened
from pipeline.stages.downsample import Downsample
from pipeline.stages.layout import Layout
from pipeline.stages.pyramid import pyramid_levels
from pipeline.volumes import open_volume, parse_target
from pipeline.volumes.base import VolumeSpec
from pipeline.volumes.ome_metadata import multiscale_attributes
from pipeline.volumes.ome_zarr import ZarrVolume
from tests.runs import run, write_run, write_volume
from tests.segmentation.test_pyramid import blocks, most, rounded

SHAPE = (21, 26, 31)
START = (3, -5, 7)
RESOLUTION = (20, 8, 8)
ROI = {"start": [4, -5, 9], "stop": [23, 20, 38]}
NETWORK = {"model": "identity", "patch_shape": [12, 12, 12], "overlap": [4, 4, 4], "any_resolution": True}


def image_run(folder: Path, chunk: list[int] = [8, 8, 8], **tables: Any) -> Path:
    image = np.kron(np.random.default_rng(0).integers(0, 2, (6, 7, 8)), np.ones((4, 4, 4))).astype(np.uint8) * 150
    noise = np.random.default_rng(1).integers(0, 90, SHAPE).astype(np.uint8)
    source = write_volume(folder / "image.zarr", image[:21, :26, :31] + noise, RESOLUTION, START)
    shapes = {"chunk_shape": chunk, "storage_chunk_shape": [4, 8, 8]}
    levels = {"volumes": ["result", "heads", "image", "supervoxels"]}
    given = {"image": source, **ROI}
    rules = {"segmentation": {"threshold": 0.5}, "supervoxels": {"mode": "volume", "max_distance_nm": 60}}
    return write_run(
        folder, **{**shapes, **rules, "input": given, "inference": NETWORK, "downsample": levels, **tables}
    )


def levels_of(url: str, number: int) -> list[np.ndarray]:
    """The voxels of the levels from 1, as any reader finds them by the metadata alone."""
    return [open_volume(f"{url}#mip={mip}")[...] for mip in range(number)]


def plain_pyramid(level0: np.ndarray, roi: BoundingBox, steps: list[Vec], of_block: Any) -> list[np.ndarray]:
    """Each level over the region of interest, from the one below: level0 is the region's, (z, y, x) or (c, z, y, x)."""
    found, start, channels = [], roi.start, level0.reshape(-1, *level0.shape[-3:])
    for step in steps:
        channels = np.stack([blocks(channel, step, start, of_block) for channel in channels])
        start = start // step
        found.append(channels)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(image_run(tmp_path_factory.mktemp("run")))


@pytest.mark.parametrize("name", ["labels", "supervoxels", "affinities", "image"])
def test_levels_are_those_of_the_whole_volume(finished: Run, name: str) -> None:
    """Every level equals a pyramid of the whole region in memory: odd sizes, odd and negative offsets, deep voxels."""
    levels, roi = pyramid_levels(finished.layout, None), finished.layout.roi
    assert [level.step for level in levels[1:]] == [Vec(1, 2, 2), *[Vec(2, 2, 2)] * 3]
    url, of_block = finished.layout.volume_url(name), rounded if name in ("affinities", "image") else most
    source = finished.inputs.url if name == "image" else url
    expected = plain_pyramid(open_volume(source).read(roi), roi, [level.step for level in levels[1:]], of_block)
    for level, plain in zip(levels[1:], expected, strict=True):
        mip = level.number - (name == "image")  # of which level 0 is elsewhere
        volume = open_volume(f"{url}#mip={mip}")
        assert (volume.bounds, volume.resolution_nm) == (level.bounds, level.resolution_nm)
        assert np.array_equal(volume.read(level.roi).reshape(plain.shape), plain), level.number
        outside = volume[...]
        outside[(..., *level.roi.slices(level.bounds.start))] = 0
        assert not outside.any()


@pytest.mark.parametrize("chunk", [[4, 8, 16], [12, 16, 8], [64, 64, 64]])
def test_no_chunk_shape_changes_a_byte(finished: Run, tmp_path: Path, chunk: list[int]) -> None:
    """Whole metadata and stored objects of the levels are the same, not only their voxels."""
    other = run(image_run(tmp_path, chunk))
    for name in ("labels", "supervoxels", "affinities", "image"):
        stored = [everything(Path(each.layout.volume_url(name))) for each in (finished, other)]
        assert stored[0] == stored[1]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class Died(BaseException):
    """The end of a driver, which no handler of errors delays."""


@pytest.mark.parametrize("fatal", [1, 3, 6, "publish"])
def test_a_killed_run_lists_no_level_and_ends_in_the_same_bytes(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fatal: int | str
) -> None:
    """A reader sees level 0 alone until the last chunk is recorded; the next driver publishes what one left behind."""
    file, written = image_run(tmp_path), []
    with monkeypatch.context() as patched:
        write, publish = Downsample.write, Downsample.publish

        def write_or_die(self: Downsample, chunk: Any, products: Any) -> None:
            write(self, chunk, products)
            written.extend([chunk] if self.name == "downsample_result" else [])
            if len(written) == fatal:
                raise Died

        def publish_or_die(self: Downsample) -> None:
            if fatal == "publish" and self.name == "downsample_result":
                raise Died
            publish(self)

        patched.setattr(Downsample, "write", write_or_die)
        patched.setattr(Downsample, "publish", publish_or_die)
        with pytest.raises(Died):
            run(file)
    assert listed(tmp_path / "run" / "labels.zarr") == ["0"]
    again = run(file)
    for name in ("labels", "supervoxels", "affinities", "image"):
        assert everything(Path(again.layout.volume_url(name))) == everything(Path(finished.layout.volume_url(name)))


def listed(volume: Path) -> list[str]:
    attributes = json.loads((volume / "zarr.json").read_text())["attributes"]
    return [dataset["path"] for image in attributes["ome"]["multiscales"] for dataset in image["datasets"]]


def test_another_threshold_writes_only_levels_that_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of another threshold get the levels of a fresh run; levels of heads and image are not touched."""
    fresh = run(image_run(tmp_path / "fresh"), "segmentation.threshold=0.9")
    file, written = image_run(tmp_path), []
    first = run(file, "segmentation.threshold=0.85")
    before, write = levels_of(first.result_url, 5), Downsample.write

    def noting(self: Downsample, chunk: Any, products: Any) -> None:
        if self.name == "downsample_result":
            assert listed(tmp_path / "run" / "labels.zarr") == ["0"], "levels of two thresholds would be seen"
        written.append((self.name, chunk.name))
        write(self, chunk, products)

    monkeypatch.setattr(Downsample, "write", noting)
    second = run(file, "segmentation.threshold=0.9")
    after = levels_of(second.result_url, 5)
    assert all(map(np.array_equal, after, levels_of(fresh.result_url, 5)))
    stage = second.stage("downsample_result")
    changed = set()
    for grid in stage.grids():
        origin, old, new = grid.bounds.start, before[grid.level], after[grid.level]
        changed |= {c.name for c in grid if not np.array_equal(old[c.core.slices(origin)], new[c.core.slices(origin)])}
    mine = {chunk for name, chunk in written if name == "downsample_result" and chunk.startswith("L")}
    assert changed
    assert changed <= mine
    assert len(mine) < sum(map(len, stage.grids()))
    written.clear()
    run(file, "segmentation.threshold=0.9")
    assert not written


def test_verify_finds_a_changed_voxel_of_a_level(tmp_path: Path) -> None:
    """A voxel of a level that somebody changed is a finding, and so is one outside of the region of interest."""
    done = run(image_run(tmp_path))
    assert all(proof.proven for proof in verify_run(done, None, seed=0))
    level = done.stage("downsample_result").stored_levels("labels")[1]
    volume = open_volume(level.url, mode="r+")
    one = BoundingBox.from_shape((1, 1, 1), (12, 3, 12))
    volume.write(one, volume.read(one) + 1)
    volume.write(BoundingBox.from_shape((1, 1, 1), level.spec.bounds.start), np.full((1, 1, 1), 9, np.uint64))
    opened.forget()
    (proof,) = verify_run(done, None, seed=0, stages=["downsample_result"])
    assert proof.findings
    assert proof.strays == ("labels.zarr/1/c/0/0/0",)


@pytest.mark.parametrize("name", ["downsample_result", "downsample_heads", "downsample_image"])
def test_a_plan_counts_the_bytes_of_all_levels(finished: Run, name: str) -> None:
    """The bytes of a plan are those that the chunks of all levels have recorded as written."""
    stage = finished.stage(name)
    written = finished.ledger(stage, read_only=True).summary().bytes_written
    assert 0 < stage.bytes_uncompressed == written


def test_without_the_table_no_level_is_listed(tmp_path: Path) -> None:
    """A run file from which the table was removed hides the levels, since they may not fit any more."""
    run(image_run(tmp_path))
    assert listed(tmp_path / "run" / "labels.zarr") == ["0", "1", "2", "3", "4"]
    run(image_run(tmp_path, downsample=None))
    assert listed(tmp_path / "run" / "labels.zarr") == listed(tmp_path / "run" / "affinities.zarr") == ["0"]


def test_fewer_levels_leave_no_old_one_behind(tmp_path: Path) -> None:
    """``downsample.levels: 1`` deletes the arrays of levels 2 and 3."""
    run(image_run(tmp_path))
    run(image_run(tmp_path, downsample={"levels": 1}))
    assert listed(tmp_path / "run" / "labels.zarr") == ["0", "1"]
    assert not (tmp_path / "run" / "labels.zarr" / "2" / "zarr.json").exists()


def test_a_level_of_somebody_else_is_refused_and_stays(tmp_path: Path) -> None:
    """A level that another program made in a volume of a run is never written or deleted."""
    done = run(image_run(tmp_path, downsample=None))
    level = Path(done.layout.volume_url("labels")) / "1"
    (level / "c").mkdir(parents=True)
    (level / "c" / "mine").write_text("mine")
    with pytest.raises(VolumeError, match="holds a level that petaseg did not make"):
        run(image_run(tmp_path))
    assert (level / "c" / "mine").read_text() == "mine"
    with pytest.raises(VolumeError, match="which petaseg did not make"):
        ZarrVolume.may_remove(parse_target(done.layout.volume_url("labels")))


def test_a_volume_that_the_run_has_not_is_refused(tmp_path: Path) -> None:
    """``heads`` of a run that begins with affinities are the user's own."""
    values = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 8), np.uint8)
    given = {"affinities": write_volume(tmp_path / "affinities.zarr", values)}
    shapes = {"chunk_shape": [4, 4, 4], "storage_chunk_shape": [4, 4, 4]}
    file = write_run(tmp_path, input=given, downsample={"volumes": ["heads"]}, **shapes)
    with pytest.raises(ConfigError, match=r"downsample\.volumes names heads, and this run has none"):
        _ = Run.open(file).stages
    assert Run.open(file, ["downsample.volumes=null"]).has_stage("downsample_result")


@pytest.mark.parametrize(
    ("resolution", "steps"),
    [
        ((8, 8, 8), [(2, 2, 2), (2, 2, 2)]),
        ((40, 4, 4), [(1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2)]),
        ((30, 6, 6), [(1, 2, 2), (1, 2, 2), (2, 2, 2)]),
        ((4, 8, 16), [(2, 1, 1), (2, 2, 1), (2, 2, 2)]),
    ],
)
def test_long_voxels_wait_until_the_others_are_as_long(resolution: Any, steps: list[tuple[int, int, int]]) -> None:
    box = BoundingBox.from_shape((500, 500, 500), (1, 2, 3))
    layout = Layout("run", box, box, Vec(64, 64, 64), Vec(64, 64, 64), resolution)
    levels = pyramid_levels(layout, len(steps))
    assert [level.step for level in levels[1:]] == steps
    for level, below in zip(levels[1:], levels, strict=False):
        assert level.bounds.start == below.bounds.start // level.step
        assert level.resolution_nm == tuple(a * b for a, b in zip(below.resolution_nm, level.step, strict=True))


def test_levels_end_with_the_first_that_fits_into_a_stored_chunk() -> None:
    for shape, number in (((64, 64, 64), 0), ((65, 64, 64), 1), ((512, 512, 512), 3), ((3, 3, 5000), 7)):
        box = BoundingBox.from_shape(shape)
        layout = Layout("run", box, box, Vec(128, 128, 128), Vec(64, 64, 64), (8, 8, 8))
        assert len(pyramid_levels(layout, None)) - 1 == number


@pytest.mark.parametrize("start", list(product((0, 1, -3), repeat=3))[::5])
def test_every_level_says_the_centre_of_its_first_voxel(tmp_path: Path, start: tuple[int, int, int]) -> None:
    """Voxel v of a level covers fine voxels from v * f on, f of them, so its centre is at v * f + (f - 1) / 2."""
    box = BoundingBox.from_shape((9, 9, 9), start)
    layout = Layout("run", box, box, Vec(4, 4, 4), Vec(4, 4, 4), (12.5, 8.0, 8.0))
    levels = pyramid_levels(layout, 2)
    specs = {str(n): VolumeSpec(each.bounds, each.resolution_nm, np.dtype("u1")) for n, each in enumerate(levels)}
    (image,) = multiscale_attributes("labels", specs)["ome"]["multiscales"]
    for level, dataset in zip(levels, image["datasets"], strict=True):
        translation = dataset["coordinateTransformations"][1]["translation"]
        fine = zip(level.bounds.start, level.factor, layout.resolution_nm, strict=True)
        assert translation == pytest.approx([(v * f + (f - 1) / 2) * r for v, f, r in fine])
