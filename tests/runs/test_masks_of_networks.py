"""A mask or objects from a network that predicts affinities too: neither a neuron nor a model's threshold is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, VolumeError
from pipeline.runs.run import Run
from pipeline.runs.summary import summarise
from pipeline.volumes import open_volume
from tests.heads import heads_run, write_model
from tests.inference.networks import NEAREST
from tests.runs import petaseg, run, write_run, write_volume
from workflows.driver import check_complete
from workflows.terminal.summary import show_summary

FOREGROUND = [{"what": "foreground", "channels": 1}]


@pytest.mark.parametrize("kind", ["mask", "objects"])
def test_a_network_of_affinities_and_foreground_makes_a_mask(tmp_path: Path, kind: str) -> None:
    """Only the head that the result is made of is stored, and nothing is asked for of which neurons are made."""
    file = heads_run(tmp_path, None, segmentation={"kind": kind})
    write_model(tmp_path / "model", FOREGROUND)
    finished = run(file)
    assert finished.inputs.heads == ("foreground",)
    assert (tmp_path / "run" / f"{kind}.zarr").is_dir()


def test_the_threshold_of_a_card_is_for_neurons_alone(tmp_path: Path) -> None:
    """A mask is cut at 0.5, and status says so, whatever threshold of affinities the card names."""
    file = heads_run(tmp_path, ["affinities", "foreground"], segmentation={"kind": "mask"})
    write_model(tmp_path / "model", FOREGROUND, threshold=0.8)
    assert str(Run.open(str(file)).chosen) == "0.5 (default)"


def signed(folder: Path, scale: float) -> Path:
    """A run file for a mask of a signed distance of another program, from -scale to scale."""
    values = np.linspace(-scale, scale, 6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8)
    folder.mkdir(exist_ok=True)
    heads = {"signed_distance": write_volume(folder / "signed.zarr", values)}
    return write_run(folder, input={"heads": heads}, segmentation={"kind": "mask", "threshold": 0.2})


def test_a_signed_distance_of_another_program_is_read_from_minus_1_to_1(tmp_path: Path) -> None:
    """Its values mean the same as those of a network's head, so the mask is where they are above the threshold."""
    finished = run(signed(tmp_path, 1))
    mask = open_volume(finished.result_url).read(finished.layout.roi)
    expected = np.rint(127.5 * (np.linspace(-1, 1, 6 * 7 * 8) + 1)) > 127.5 * 1.2
    np.testing.assert_array_equal(mask.ravel(), expected)


def test_a_signed_distance_in_voxels_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=r"must lie in -1\.\.1: divide them by the largest distance"):
        Run.open(str(signed(tmp_path, 30)))


def test_the_summary_of_a_mask_counts_pieces_and_hints_at_a_threshold_that_is_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pieces of a mask have no labels; what is hinted at lies between the lowest threshold and the one in use."""
    heads = {"foreground": write_volume(tmp_path / "foreground.zarr", np.full((4, 5, 6), 140, np.uint8))}
    finished = run(write_run(tmp_path, input={"heads": heads}, segmentation={"kind": "mask"}))
    show_summary(summarise(finished))
    shown = capsys.readouterr().out
    assert "pieces found" in shown
    assert "label" not in shown
    empty = run(tmp_path / "run.yaml", "segmentation.threshold=0.6")
    (warning,) = summarise(empty).warnings
    assert "--threshold 0.35`" in warning
    assert "seed" not in warning


def test_a_threshold_below_zero_is_applied_to_a_signed_distance(tmp_path: Path) -> None:
    """relabel takes what the run file takes."""
    file = signed(tmp_path, 1)
    run(file, "segmentation.lowest_threshold=-0.9")
    done = petaseg("relabel", file, "--threshold", "-0.5", "--set", "segmentation.lowest_threshold=-0.9")
    assert done.returncode == 0, done.stderr
    shown = petaseg("relabel", file, "--preview=-0.3,0.3")
    assert shown.returncode == 0, shown.stderr
    assert "pieces of the mask" in shown.stdout
    refused = petaseg("relabel", file, "--preview=-0.95")
    assert "threshold -0.95 is below -0.9, where the stored tables end" in refused.stderr


def test_a_threshold_below_the_stored_tables_is_refused_with_what_computes_them(tmp_path: Path) -> None:
    """The message says how far the tables reach, and the key that lets them reach further."""
    heads = {"foreground": write_volume(tmp_path / "foreground.zarr", np.full((4, 5, 6), 140, np.uint8))}
    file = write_run(tmp_path, input={"heads": heads}, segmentation={"kind": "mask"})
    check_complete(run(file), "tables")
    with pytest.raises(ConfigError, match=r"is 0\.05, and .* down to 0\.1 .*lowest_threshold to 0\.05"):
        check_complete(Run.open(str(file), ["segmentation.threshold=0.05"]), "tables")
    beside = petaseg("relabel", file, "--threshold", "0.05", "--output", "more.zarr")
    assert "lowest_threshold to 0.05 in the run file" in " ".join(beside.stderr.split())
    lower = "segmentation.lowest_threshold=0.05"
    run(file, lower)
    check_complete(Run.open(str(file), ["segmentation.threshold=0.06", lower]), "tables")


def test_a_head_with_other_channels_than_the_stored_one_is_refused(tmp_path: Path) -> None:
    """The message names the volume, both numbers of channels, and the keys that decide about them."""
    file = heads_run(tmp_path, ["affinities"])
    write_model(tmp_path / "model", FOREGROUND, [*NEAREST, [0, 0, -3]])
    run(file)
    with pytest.raises(ConfigError, match=r"affinities\.zarr has 3 channels, .*predicts 4: agglomeration\.far_offsets"):
        run(file, "agglomeration.far_offsets=[[0,0,-3]]")


def test_a_run_directory_in_place_of_a_volume_is_refused_with_the_volumes_that_it_holds(tmp_path: Path) -> None:
    run(signed(tmp_path, 1))
    with pytest.raises(
        VolumeError, match=r"run directory, and no volume; name a volume in it \(mask.zarr, basins.zarr"
    ):
        open_volume(str(tmp_path / "run"))
