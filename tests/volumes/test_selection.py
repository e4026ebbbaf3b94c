"""A mask out of a volume of classes, by ``petaseg ingest --select``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.errors import ConfigError, VolumeError
from pipeline.volumes import open_volume
from pipeline.volumes.ingest import ingest
from pipeline.volumes.selection import SelectedVolume
from workflows.app import app

CLASSES = np.random.default_rng(0).choice([0, 128, 191, 223, 255], (9, 20, 30)).astype(np.uint8)
SMALL: dict[str, Any] = {"resolution_nm": (50, 4, 4), "storage_chunk": (4, 8, 16), "memory_bytes": 4 * 8 * 16}


def source(folder: Path, array: np.ndarray = CLASSES) -> str:
    np.save(folder / "classes.npy", array)
    return str(folder / "classes.npy")


@pytest.mark.parametrize("values", [(191,), (223, 191), (7,)])
def test_the_values_become_1_and_all_others_0(tmp_path: Path, values: tuple[int, ...]) -> None:
    report = ingest(source(tmp_path), str(tmp_path / "mask.zarr"), select=values, **SMALL)
    stored = open_volume(str(tmp_path / "mask.zarr"))
    assert report.blocks > 1
    assert stored.spec.dtype == np.uint8
    assert np.array_equal(stored.read(stored.spec.bounds), np.isin(CLASSES, values))


def test_the_command_selects(tmp_path: Path) -> None:
    options = ["--resolution", "50,4,4", "--select", "191, 223"]
    result = CliRunner().invoke(app, ["ingest", source(tmp_path), str(tmp_path / "mask.zarr"), *options])
    assert result.exit_code == 0, result.output
    stored = open_volume(str(tmp_path / "mask.zarr"))
    assert np.array_equal(stored.read(stored.spec.bounds), np.isin(CLASSES, [191, 223]))


def test_an_interrupted_selection_goes_on_with_the_same_values_only(tmp_path: Path) -> None:
    place, target = source(tmp_path), str(tmp_path / "mask.zarr")

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(place, target, select=(191,), on_progress=stop, **SMALL)
    for other in ((223,), None):
        with pytest.raises(VolumeError):
            ingest(place, target, select=other, **SMALL)
    assert ingest(place, target, select=(191,), **SMALL).resumed == 2
    stored = open_volume(target)
    assert np.array_equal(stored.read(stored.spec.bounds), CLASSES == 191)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (CLASSES, {"select": (191,), "to": "uint8"}, "leave out --to"),
        (CLASSES, {"select": (256,)}, r"select is \[256\].* holds uint8: give .* from 0 to 255"),
        (CLASSES, {"select": (-1,)}, "from 0 to 255"),
        (CLASSES, {"select": ()}, "at least one whole number"),
        (CLASSES.astype(np.float32), {"select": (1,)}, "holds float32"),
    ],
)
def test_what_cannot_be_selected_is_refused(
    tmp_path: Path, array: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ingest(source(tmp_path, array), str(tmp_path / "mask.zarr"), **options, **SMALL)
    assert not (tmp_path / "mask.zarr").exists()


def test_text_that_is_no_list_of_numbers_is_refused(tmp_path: Path) -> None:
    place = source(tmp_path)
    for text in ("mito", "", "191,,223", "1.5"):
        result = CliRunner().invoke(app, ["ingest", place, str(tmp_path / "mask.zarr"), "--select", text])
        assert isinstance(result.exception, ConfigError)
        assert "give whole numbers, for example --select 191,223" in str(result.exception)


def test_a_selection_is_only_read(tmp_path: Path) -> None:
    volume = SelectedVolume(open_volume(source(tmp_path) + "#resolution=1,1,1"), (191,))
    with pytest.raises(VolumeError, match="write to the volume itself"):
        volume.write(volume.spec.bounds, CLASSES)
