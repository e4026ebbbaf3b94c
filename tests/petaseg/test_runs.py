"""Runs, scores and pictures from Python."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import petaseg
from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation.compare import compare_volumes
from pipeline.models.spec import BUNDLED
from pipeline.volumes import open_volume
from tests.runs import petaseg as command
from tests.runs import real_affinities, write_run, write_volume


@pytest.fixture(scope="module")
def data(shared_data, tmp_path_factory):
    """A folder with affinities, and labels of them that serve as truth."""
    folder = tmp_path_factory.mktemp("data")
    affinities = real_affinities(shared_data, (24, 32, 36))
    write_volume(folder / "affinities.zarr", affinities)
    write_volume(folder / "truth.zarr", petaseg.agglomerate(affinities, resolution=(8, 8, 8), threshold=0.7))
    return folder


def configuration(folder, data):
    return {
        "run_directory": str(folder / "run"),
        "input": {"affinities": data / "affinities.zarr"},
        "chunk_shape": (16, 16, 36),
        "storage_chunk_shape": np.array((16, 16, 36)),
        "evaluation": {"labels": data / "truth.zarr"},
        "execution": {"executor": "serial"},
    }


def test_a_dictionary_is_run_like_a_file(tmp_path, data):
    """A dictionary gives the results of a run file with the same keys, and the command line goes on with its run."""
    result = petaseg.run(configuration(tmp_path, data), segmentation={"threshold": 0.4})
    tables = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    file = write_run(tmp_path / "file", **{k: v for k, v in tables.items() if k not in ("run_directory", "version")})
    same = petaseg.run(file)
    assert result.labels.shape == (24, 32, 36)
    assert np.array_equal(result.labels, same.labels)
    assert np.array_equal(result.supervoxels, same.supervoxels)
    assert result.scores == same.scores
    assert command("status", tmp_path / "run").returncode == 0
    assert command("run", tmp_path / "run", "--dry-run").returncode == 0


def test_a_run_is_continued_and_its_status_is_read(tmp_path, data):
    """A second call computes nothing, and ``status`` counts all chunks, of a result, a directory and a file."""
    result = petaseg.run(configuration(tmp_path, data))
    before = petaseg.status(result)
    petaseg.run(result)
    for named in (result, tmp_path / "run", str(tmp_path / "run" / "run.yaml")):
        found = petaseg.status(named)
        assert found.complete
        assert [(s.name, s.done, s.last) for s in found.stages] == [(s.name, s.done, s.last) for s in before.stages]


def test_data_and_models_that_were_made_anew_are_opened_anew(tmp_path):
    """A second run of one process reads the image and the weights that lie there now."""
    image = np.random.default_rng(1).integers(0, 256, (16, 32, 32), np.uint8)
    outputs = []
    for times, bundled in ((1, "synthetic-tiny"), (2, "fib25-tiny")):
        shape = (16, 32, 32 * times)
        volume = petaseg.create(tmp_path / "image.zarr", shape, "uint8", (8, 8, 8), chunk=(16, 32, 32), overwrite=True)
        volume[...] = np.concatenate([image] * times, axis=2)
        shutil.copytree(BUNDLED / bundled, tmp_path / "model", dirs_exist_ok=True)
        config = {"run_directory": tmp_path / str(times), "input": {"image": tmp_path / "image.zarr"}}
        inference = {"model": tmp_path / "model" / "card.yaml", "patch_shape": (16, 32, 32), "overlap": (0, 0, 0)}
        outputs.append(petaseg.run(config, inference=inference).affinities[..., :32])
        expected = petaseg.predict(np.asarray(volume), resolution=(8, 8, 8), inference={**inference, "model": bundled})
        assert np.array_equal(outputs[-1], expected[..., :32])
    assert not np.array_equal(*outputs)


def test_paths_of_a_dictionary_count_from_the_working_directory(tmp_path, data, monkeypatch):
    monkeypatch.chdir(data)
    result = petaseg.run({"run_directory": tmp_path / "run", "input": {"affinities": "affinities.zarr"}})
    assert result.scores is None
    assert result.run_directory == str(tmp_path / "run")


def test_another_threshold_is_applied_to_a_finished_run(tmp_path, data):
    """``relabel`` gives the labels of a run with that threshold, and refuses a run that is not finished."""
    with pytest.raises(ConfigError, match="does not exist"):
        petaseg.relabel(tmp_path / "run", threshold=0.7)
    result = petaseg.run(configuration(tmp_path, data), segmentation={"threshold": 0.3})
    again = petaseg.relabel(result, threshold=0.7)
    assert (result.threshold, again.threshold) == (0.3, 0.7)
    assert np.array_equal(again.labels, open_volume(str(data / "truth.zarr")))
    assert again.scores.voi == 0
    assert repr(again) == f"<finished run {tmp_path / 'run'}, threshold 0.7, {again.scores!r}>"


def test_an_unfinished_run_is_not_relabelled(tmp_path, data):
    file = write_run(tmp_path, input={"affinities": str(data / "affinities.zarr")})
    with pytest.raises(ConfigError, match="has no finished agglomerate"):
        petaseg.relabel(file, threshold=0.7)


def test_a_configuration_that_does_not_fit_is_refused(tmp_path, data):
    """Unknown keys, values that no run file can hold and a missing directory end in a ``ConfigError``."""
    good = configuration(tmp_path, data)
    with pytest.raises(ConfigError, match="chunk_shap"):
        petaseg.run({**good, "chunk_shap": 3})
    with pytest.raises(ConfigError, match=r"the configuration is .* cannot hold"):
        petaseg.run({**good, "execution": {"workers": object()}})
    with pytest.raises(ConfigError, match="run_directory"):
        petaseg.run({"input": good["input"]})
    assert not (tmp_path / "run").exists()


def test_arrays_volumes_and_paths_have_the_same_scores(data):
    """Labels are scored alike as arrays, as volumes and as paths."""
    truth = petaseg.open(data / "truth.zarr")
    labels = np.asarray(truth) // np.uint64(3)
    split = write_volume(data / "split.zarr", labels)
    expected = compare_volumes(str(data / "truth.zarr"), split).scores
    for one in (labels, petaseg.open(split), split):
        for other in (truth[...], truth, data / "truth.zarr"):
            assert petaseg.evaluate(one, other) == expected
    assert petaseg.evaluate(labels, truth=truth).voi_merge > petaseg.evaluate(truth, truth=labels).voi_merge


def test_scores_are_read_at_a_glance():
    """The repr of scores gives VOI with its parts, the Rand error, and what was found."""
    truth = np.repeat(np.arange(1, 5), 2000).reshape(4, 40, 50)
    assert repr(petaseg.evaluate(np.minimum(truth, 3), truth)) == (
        "VOI 0.500 bits (split 0.000, merge 0.500), adapted Rand error 0.200, 2 of 4 neurons found, 3 segments, "
        "8,000 voxels"
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones((2, 2, 3), int), r"truth has shape \(2, 2, 2\), prediction \(2, 2, 3\)"),
        (np.ones((2, 2, 2)), "prediction has type float64: ids must be integers"),
        (-np.ones((2, 2, 2), int), "smallest id -1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(VolumeError, match=message):
        petaseg.evaluate(labels, np.ones((2, 2, 2), int))


def test_a_picture_is_shown_and_saved(tmp_path):
    """A picture is a PNG for a notebook and for a file; shapes that differ are refused."""
    labels = np.arange(8).reshape(2, 2, 2)
    picture = petaseg.draw(labels, image=np.zeros((2, 2, 2), np.uint8), truth=labels, resolution=(40, 4, 4))
    picture.save(tmp_path / "picture.png")
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert (tmp_path / "picture.png").read_bytes() == picture.png
    assert repr(picture) == f"<picture, png of {len(picture.png):,} bytes>"
    with pytest.raises(VolumeError, match="equal"):
        petaseg.draw(labels, image=np.zeros((2, 2, 3), np.uint8))


def test_every_name_is_documented():
    """The package has few names, and each says what it is for."""
    for name in set(petaseg.__all__) - {"__version__"}:
        assert len(getattr(petaseg, name).__doc__) > 40, name
    assert len(petaseg.__all__) <= 16


def test_progress_is_shown_where_it_is_asked_for(tmp_path, data, capsys):
    """With ``progress`` each stage that computes has a line on standard error; without, nothing is printed."""
    result = petaseg.run(configuration(tmp_path, data))
    assert capsys.readouterr() == ("", "")
    petaseg.relabel(result, threshold=0.2, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "relabel" in shown.err
    assert "supervoxels" not in shown.err


def test_the_page_lists_every_name():
    """docs/python.md has a row for each name of the package, and for no other."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text()
    rows = {re.match(r"\| `(\w+)", line)[1] for line in page.splitlines() if line.startswith("| `")}
    assert rows == set(petaseg.__all__) - {"__version__", "Picture"}
    assert "`Picture`" in page
