"""After an ingest the commands are printed that fit what was ingested."""

import numpy as np
import pytest

from pipeline.geometry import BoundingBox
from pipeline.volumes.base import VolumeSpec
from workflows.commands.ingested import next_steps


@pytest.mark.parametrize(
    ("dtype", "channels", "words"),
    [
        ("uint8", None, ["init run.yaml --image 'a b.zarr'"]),
        ("uint8", 1, ["init run.yaml --image 'a b.zarr'"]),
        ("uint8", 3, ["init run.yaml --affinities 'a b.zarr'", "--model MODEL --image", "'a b.zarr#channel=1'"]),
        ("uint8", 4, ["init run.yaml --affinities 'a b.zarr'"]),
        ("float32", 12, ["init run.yaml --affinities 'a b.zarr'"]),
        ("float32", None, ["ingest 'a b.zarr' image.zarr --to uint8"]),
        ("uint16", None, ["--to uint8", "--labels 'a b.zarr'"]),
        ("uint64", None, ["init train.yaml --image IMAGE --labels 'a b.zarr'", "petaseg evaluate TRUTH 'a b.zarr'"]),
        ("int32", None, ["--set evaluation.labels='a b.zarr'"]),
        ("uint8", 2, ["no run reads 2 channels: take one of them ('a b.zarr#channel=0')"]),
        ("uint32", 3, ["no run reads 3 channels"]),
    ],
)
def test_the_next_commands_fit_the_type_and_the_channels(dtype, channels, words):
    """Images, affinities, labels and what must be converted first each get their own commands."""
    spec = VolumeSpec(BoundingBox.from_shape((4, 4, 4)), (8.0, 8.0, 8.0), np.dtype(dtype), channels)
    text = "\n".join(next_steps("a b.zarr", spec))
    assert all(each in text for each in words)
    assert ("--affinities" in text) == (words[0].startswith("init run.yaml --aff"))
