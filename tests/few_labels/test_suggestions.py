"""Boxes to label: how they are described and chosen, what is written, and that labelled crops go back to training."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.config.reading import load_config
from pipeline.errors import ConfigError, PetasegError
from pipeline.few_labels.candidates import boxes_of, counts_of, lattice, what_is_said, what_is_seen
from pipeline.few_labels.choice import choose, k_means
from pipeline.few_labels.suggestions import Candidates, write_crop
from pipeline.geometry import BoundingBox, Vec
from pipeline.runs.run import Run
from pipeline.training.config import TrainConfig
from pipeline.training.dry_run import dry_run
from pipeline.volumes import open_volume
from tests.runs import run, write_run, write_volume
from tests.training.trainings import settings
from tests.training.volumes import cubes
from workflows.app import app

SHAPE = (32, 32, 48)


def image_run(folder: Path, **tables) -> Path:
    """A run of a bundled network on cubes of which one half is noise, at an offset."""
    image = cubes(SHAPE)[0]
    image[:, :, 24:] = np.random.default_rng(0).integers(0, 256, (32, 32, 24))
    url = write_volume(folder / "image.zarr", image, start=(8, 0, 16))
    given = {"input": {"image": url}, "inference": {"model": "synthetic-tiny", "any_resolution": True}}
    return write_run(folder, **{**given, **tables})


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """The run file of a finished run."""
    file = image_run(tmp_path_factory.mktemp("suggest"))
    run(file)
    return file


def invoke(*words):
    return CliRunner().invoke(app, ["suggest", *map(str, words), "--quiet"])


def suggested(file: Path, output: Path, *words) -> dict[str, bytes]:
    """The files that the command writes beside the crops."""
    shown = invoke(file, "--boxes", 4, "--box-shape", "16,16,16", "--output", output, *words)
    assert shown.exit_code == 0, shown.output
    return {name: (output / name).read_bytes() for name in ("suggestions.csv", "sheet.png")}


def test_suggestions_are_a_pure_function_of_the_run(done, tmp_path):
    """Repeated, and with other chunks and workers of the run, the table and the picture are the same bytes."""
    first = suggested(done, tmp_path / "first")
    assert suggested(done, tmp_path / "again") == first
    chunks = ("chunk_shape=[16,16,32]", "storage_chunk_shape=[16,16,32]", "execution.executor=threads")
    other = image_run(tmp_path / "other", chunk_shape=[16, 16, 32], storage_chunk_shape=[16, 16, 32])
    run(other, *chunks[2:])
    assert suggested(other, tmp_path / "chunks") == first


def test_crops_lie_where_they_were_cut_and_their_labels_wait_to_be_painted(done, tmp_path):
    suggested(done, tmp_path)
    image = open_volume(str(done.parent / "image.zarr"))
    with (tmp_path / "suggestions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["box-01", "box-02", "box-03", "box-04"]
    for row in rows:
        box = BoundingBox(*(tuple(int(row[f"{axis}_{end}"]) for axis in "zyx") for end in ("start", "stop")))
        crop, labels = (open_volume(str(tmp_path / row["name"] / f"{kind}.zarr")) for kind in ("image", "labels"))
        assert crop.bounds == box == labels.bounds
        assert crop.resolution_nm == image.resolution_nm == labels.resolution_nm
        assert np.array_equal(crop[...], image.read(box))
        assert labels.dtype == np.uint32
        assert not labels[...].any()
    assert (tmp_path / "sheet.png").stat().st_size > 5000


def test_painted_crops_are_further_volumes_of_a_training(done, tmp_path):
    """Labels painted into a crop, with the lines that were written, train at the crop's offset."""
    suggested(done, tmp_path / "boxes")
    volumes = yaml.safe_load((tmp_path / "boxes" / "volumes.yaml").read_text())["volumes"]
    truth = cubes((40, 32, 64))[1]
    for volume in volumes:
        labels = open_volume(volume["labels"], mode="r+")
        labels.write(labels.bounds, truth[labels.bounds.slices()])
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "boxes").rglob("*") if path.is_file()}
    suggested(done, tmp_path / "boxes")  # the same call again touches nothing
    assert {path: path.stat().st_mtime_ns for path in again} == again
    data = settings(tmp_path / "model", pictures=False).model_dump(mode="json", exclude_unset=True)
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump({**data, "volumes": volumes, "validation": volumes[0], "patch_shape": [8, 16, 16]}))
    found = dry_run(load_config(file, (), TrainConfig))
    assert found.voxels == 4 * 16**3
    shown = invoke(done, "--boxes", 99, "--box-shape", "16,16,16", "--output", tmp_path / "more", "--labelled", file)
    assert "holds 8 boxes" in str(shown.exception), "the four that are labelled are left out"


def test_a_killed_suggestion_never_writes_over_labels(done, tmp_path):
    """Where crops are there and the table is not, the same call completes them and keeps what was painted."""
    suggested(done, tmp_path)
    labels = open_volume(str(tmp_path / "box-02" / "labels.zarr"), mode="r+")
    labels.write(labels.bounds, np.full(labels.shape, 7, np.uint32))
    before = (tmp_path / "suggestions.json").read_bytes()
    (tmp_path / "suggestions.json").unlink()
    suggested(done, tmp_path)
    assert (tmp_path / "suggestions.json").read_bytes() == before
    assert (open_volume(str(tmp_path / "box-02" / "labels.zarr"))[...] == 7).all()


def test_codes_of_an_autoencoder_choose_boxes_too(done, tmp_path):
    """With --describe-by vae the same call gives the same boxes, and a folder of pooled ones is refused."""
    suggested(done, tmp_path / "one", "--describe-by", "vae")
    suggested(done, tmp_path / "two", "--describe-by", "vae")
    tables = [(tmp_path / name / "suggestions.csv").read_bytes() for name in ("one", "two")]
    assert tables[0] == tables[1]
    words = ("--boxes", 4, "--box-shape", "16,16,16", "--output", tmp_path / "one")
    with pytest.raises(ConfigError, match="holds suggestions for other predictions"):
        raise invoke(done, *words).exception


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--boxes", "13"], "--boxes is 13, and the region .* holds 12 boxes"),
        (["--box-shape", "64"], "holds 0 boxes"),
        (["--box-shape", "16,0,16"], "give three counts"),
        (["--output", "{image}/boxes"], "image.zarr, or in it: name another folder"),
        (["--output", "{run}/boxes"], "run, or in it: name another folder"),
        (["--output", "s3://bucket/boxes"], "crops are painted on this machine"),
        (["--labelled", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["--describe-by", "colour"], "--describe-by is 'colour'; it must be one of pooled, vae"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(done, tmp_path, words, message):
    places = {"image": done.parent / "image.zarr", "run": done.parent / "run"}
    given = {"--boxes": "4", "--box-shape": "16,16,16", "--output": str(tmp_path / "boxes")}
    given |= {words[0]: words[1].format(**places)}
    shown = invoke(done, *[word for pair in given.items() for word in pair])
    assert isinstance(shown.exception, PetasegError), shown.output
    with pytest.raises(ConfigError, match=message):
        raise shown.exception
    assert not (tmp_path / "boxes").exists()


def test_other_suggestions_in_the_folder_are_refused(done, tmp_path):
    suggested(done, tmp_path)
    shown = invoke(done, "--boxes", 5, "--box-shape", "16,16,16", "--output", tmp_path)
    assert "holds suggestions for other predictions" in str(shown.exception)


def test_a_run_without_finished_predictions_is_refused(tmp_path):
    shown = invoke(image_run(tmp_path), "--output", tmp_path / "boxes")
    assert "has no finished blend_heads" in str(shown.exception)


def test_masked_boxes_and_the_rest_of_the_lattice_are_no_candidates(tmp_path):
    """Boxes that are masked by more than half are left out, and so is what no whole box covers."""
    mask = np.ones(SHAPE, np.uint8)
    mask[:16, :16, :9] = 0
    url = write_volume(tmp_path / "mask.zarr", mask, start=(8, 0, 16))
    image = {"image": str(tmp_path / "image.zarr"), "mask": url}
    found = boxes_of(Run.open(image_run(tmp_path, input=image)), Vec(16, 16, 16))
    assert len(found) == 11
    assert BoundingBox.from_shape((16, 16, 16), (8, 0, 16)) not in found
    assert len(list(lattice(BoundingBox((0, 0, 0), (33, 47, 16)), Vec(16, 16, 16)))) == 4


def candidates(seen: list[float], said: list[float], unsure: list[float]) -> Candidates:
    """Candidates whose descriptions have one number that differs."""
    features = np.zeros((len(seen), 80))
    features[:, 0] = seen
    boxes = tuple(BoundingBox.from_shape((1, 1, 1), (0, 0, x)) for x in range(len(seen)))
    return Candidates(boxes, np.array(unsure), np.array(unsure), np.array(said)[:, None], features)


def test_clusters_take_turns_and_each_gives_its_most_unsure_box():
    """Of two kinds of tissue and two kinds of predictions, each is proposed once before any is proposed twice."""
    seen = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    said = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    unsure = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    chosen = choose(candidates(seen, said, unsure), 4)
    assert [choice.number for choice in chosen] == [0, 4, 2, 6]
    assert len({(choice.cluster, choice.group) for choice in chosen}) == 4
    every = [choice.number for choice in choose(candidates(seen, said, unsure), 8)]
    assert sorted(every) == list(range(8))


def test_equal_boxes_are_chosen_in_the_order_of_their_places():
    """Where all descriptions are equal there is one cluster, and the first boxes are taken."""
    assert [choice.number for choice in choose(candidates([1.0] * 6, [1.0] * 6, [0.5] * 6), 3)] == [0, 1, 2]


def test_k_means_finds_clouds_that_are_apart():
    rng = np.random.default_rng(0)
    clouds = np.repeat(np.arange(3), 20)
    found = k_means(rng.normal(size=(60, 4)) + 20 * np.eye(4)[clouds], 3)
    assert len({*zip(clouds.tolist(), found.tolist(), strict=True)}) == 3


def test_how_unsure_a_box_is_follows_from_its_affinities(done):
    """Affinities of 0 and 255 are sure, those in the middle are not."""
    from pipeline.few_labels.candidates import ENTROPY, UNSURE

    assert UNSURE[[0, 255]].tolist() == [0, 0]
    assert UNSURE[127] == UNSURE[128] == 254 / 255
    assert ENTROPY[[0, 255]].tolist() == [0, 0]
    assert ENTROPY.argmax() in (127, 128)
    counts = counts_of(np.array([[[[0, 255]]], [[[128, 128]]]], np.uint8))
    assert what_is_said(counts).round(3).tolist() == [0.5, 0, 0, 0.5, 0, 0, 1, 0, 0.5, 0.502]


@pytest.mark.parametrize("shape", [(16, 16, 16), (1, 40, 33), (3, 5, 2)])
def test_what_is_seen_has_the_same_length_for_any_box(shape):
    """Thin and odd boxes, and images in colours, are described by as many numbers."""
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert what_is_seen(image).shape == (80,)
    assert np.isfinite(what_is_seen(image)).all()
    assert np.allclose(what_is_seen(np.stack([image] * 3)), what_is_seen(image))


def test_labels_of_a_crop_are_made_once(tmp_path):
    """A crop that is written again keeps the labels that somebody has painted."""
    image = write_volume(tmp_path / "image.zarr", cubes((8, 8, 8))[0])
    opened_run, box = SimpleNamespace(inputs=SimpleNamespace(url=image)), BoundingBox((2, 2, 2), (6, 6, 6))
    write_crop(opened_run, tmp_path / "box", box)
    labels = open_volume(str(tmp_path / "box" / "labels.zarr"), mode="r+")
    labels.write(box, np.full(labels.shape, 7, np.uint32))
    write_crop(opened_run, tmp_path / "box", box)
    assert (open_volume(str(tmp_path / "box" / "labels.zarr"))[...] == 7).all()
