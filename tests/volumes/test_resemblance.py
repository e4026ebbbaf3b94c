"""An image that is given as labels, and labels that are given as an image, are refused with the remedy."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import VolumeError
from pipeline.evaluation.compare import compare_volumes
from pipeline.evaluation.kinds import OBJECTS, Settings, pair_of
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.synthetic.tissue import make_tissue
from pipeline.training.config import LabelledVolume
from pipeline.training.sources import open_source
from pipeline.volumes import open_volume
from pipeline.volumes.image_rules import check_image
from pipeline.volumes.resemblance import refuse_image_as_labels, refuse_labels_as_image
from tests.runs import write_run, write_volume

SHAPE = (24, 40, 48)
IMAGE = np.random.default_rng(0).normal(130, 30, SHAPE).clip(0, 255).astype(np.uint8)
LABELS = (np.arange(48) // 8 + 6 * (np.arange(40)[:, None] // 8) + np.zeros(SHAPE, int)).astype(np.uint8)
"""Columns of 8 x 8 voxels."""


def of_image(dtype: str, folder: Path) -> str:
    return write_volume(folder / f"image-{dtype}.zarr", IMAGE.astype(dtype))


def of_labels(dtype: str, folder: Path) -> str:
    return write_volume(folder / f"labels-{dtype}.zarr", LABELS.astype(dtype))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_an_image_is_no_truth_and_no_segmentation(dtype: str, tmp_path: Path) -> None:
    """In a score, in either place, in a run and in a training."""
    image, labels = of_image(dtype, tmp_path), of_labels("uint16", tmp_path)
    grey = of_image("uint8", tmp_path / "grey")
    affinities = write_volume(tmp_path / "affinities.zarr", np.stack([IMAGE] * 3))
    opened.forget()
    for command in (
        lambda: compare_volumes(labels, image),
        lambda: compare_volumes(image, labels),
        lambda: pair_of(OBJECTS, open_volume(labels), open_volume(image), None, Settings()),
        lambda: Run.open(write_run(tmp_path, input={"affinities": affinities}, evaluation={"labels": image})),
        lambda: open_source(LabelledVolume(image=grey, labels=image)),
    ):
        with pytest.raises(VolumeError, match=r"looks like an image, and labels are needed: \d% of .* uint32"):
            command()


def test_labels_are_no_image(tmp_path: Path) -> None:
    """``#scale=255`` says that they are one, and changes no voxel."""
    url = of_labels("uint8", tmp_path)
    with pytest.raises(VolumeError, match=r"looks like labels, and an image is needed: .*#scale=255"):
        check_image(open_volume(url), 1, "a network")
    said = open_volume(f"{url}#scale=255")
    check_image(said, 1, "a network")
    np.testing.assert_array_equal(said[...], LABELS)


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_labels_are_labels_and_images_are_images(dtype: str, tmp_path: Path) -> None:
    refuse_image_as_labels(open_volume(of_labels(dtype, tmp_path)))
    refuse_labels_as_image(open_volume(of_image("uint8", tmp_path)))


def test_what_is_stored_in_32_bits_is_meant(tmp_path: Path) -> None:
    """The remedy of the message works."""
    refuse_image_as_labels(open_volume(of_image("uint32", tmp_path)))


@pytest.mark.parametrize(
    "image",
    [
        np.full(SHAPE, 7, np.uint8),
        (IMAGE > 130).astype(np.uint8) * 255,
        np.where(np.arange(48) < 40, np.uint8(0), IMAGE),
        np.repeat(IMAGE[:, :, :24], 2, axis=2),
    ],
    ids=["constant", "black and white", "much padding", "twice as large"],
)
def test_other_images_are_left_alone(image: np.ndarray, tmp_path: Path) -> None:
    refuse_labels_as_image(open_volume(write_volume(tmp_path / "a.zarr", image)))


@pytest.mark.parametrize("seed", range(3))
def test_made_up_tissue_is_what_it_is(seed: int, tmp_path: Path) -> None:
    tissue = make_tissue((32, 48, 48), seed=seed)
    refuse_labels_as_image(open_volume(write_volume(tmp_path / "image.zarr", tissue.image)))
    refuse_image_as_labels(open_volume(write_volume(tmp_path / "labels.zarr", tissue.labels.astype(np.uint16))))


@pytest.mark.parametrize(
    ("file", "image", "labels"),
    [
        ("fib25_train2.h5", "raw", ("labels", "ffn_reference", "supervoxels")),
        ("gala_train.h5", "raw", ("labels", "supervoxels")),
        ("vnc_stack1.h5", "raw", ("labels", "classes", "boundaries")),
    ],
)
def test_published_volumes_are_what_they_are(
    file: str, image: str, labels: tuple[str, ...], shared_data: Path, tmp_path: Path
) -> None:
    """Labels in 16 bits as well, where the look decides."""
    with h5py.File(shared_data / file) as h5:
        parts = {name: h5[name][:40, :200, :200] for name in (image, *labels)}
    refuse_labels_as_image(open_volume(write_volume(tmp_path / "image.zarr", parts[image])))
    with pytest.raises(VolumeError, match="looks like an image"):
        refuse_image_as_labels(open_volume(f"{tmp_path}/image.zarr"))
    for name in labels:
        small = np.unique(parts[name], return_inverse=True)[1].reshape(parts[name].shape).astype(np.uint16)
        refuse_image_as_labels(open_volume(write_volume(tmp_path / f"{name}.zarr", small)))
