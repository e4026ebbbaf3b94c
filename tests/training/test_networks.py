"""Networks with feedforward levels, batch norms and gates are trained and run."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import ConfigError, ModelError
from pipeline.models.residual_unet import SIZES
from pipeline.models.spec import named_arguments
from pipeline.synthetic.tissue import make_tissue
from pipeline.training.callbacks import CHECKPOINT, weights_of
from pipeline.training.config import TrainConfig
from pipeline.training.module import TrainingModule, arguments_of
from pipeline.training.trainer import train
from tests.runs import results, run, write_run, write_volume

UNET = {"widths": [4, 6, 8], "pools": [[2, 2, 2]], "embedding": [3, 3, 3], "first_kernel": [3, 3, 3]}
NETWORKS = {
    "residual_unet": UNET,
    "connectomics_unet": {"widths": [4, 6, 8], "isotropy": [True, True, True], "io_kernel": [3, 3, 3]},
    "rignet": {"host": "residual_unet", "host_arguments": UNET},
}


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    """Made-up tissue as volumes: image and labels."""
    made = make_tissue((16, 40, 40), seed=7)
    folder = tmp_path_factory.mktemp("tissue")
    return {name: write_volume(folder / f"{name}.zarr", getattr(made, name)) for name in ("image", "labels")}


def settings(output, tissue, architecture, **changes):
    """A training of twenty steps, its last slab held back."""
    values = {
        "output": str(output),
        "name": architecture,
        "volumes": [{**tissue, "start": (0, 0, 0), "stop": (16, 24, 40)}],
        "validation": {**tissue, "start": (0, 24, 0), "stop": (16, 40, 40)},
        "architecture": architecture,
        "arguments": NETWORKS[architecture],
        "offsets": ((-1, 0, 0), (0, -1, 0), (0, 0, -1)),
        "patch_shape": (12, 16, 16),
        "overlap": (4, 4, 4),
        "steps": 20,
        "warmup_steps": 2,
        "learning_rate": 5e-3,
        "validate_every": 10,
        "precision": "float32",
    }
    return TrainConfig.model_validate(values | changes, strict=False)


class Killed(Exception):  # noqa: N818  (it stands for a signal)
    """What a test raises in the middle of a training."""


@pytest.mark.parametrize("architecture", NETWORKS)
def test_twenty_steps_on_made_up_tissue_teach_something(tmp_path, tissue, architecture):
    """Twenty steps lower the loss, and a killed training resumes to the same state, batch norms included."""
    train(settings(tmp_path / "whole", tissue, architecture))
    records = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert records[-1]["loss"] < 0.97 * records[0]["loss"]
    config = settings(tmp_path / "parts", tissue, architecture)

    def die(done, _total):
        if done == 15:
            raise Killed

    with pytest.raises(Killed):
        train(config, on_progress=die)
    train(config)
    expected, found = (weights_of(tmp_path / name / CHECKPOINT)["state_dict"] for name in ("whole", "parts"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_pipeline_runs_a_trained_unet_whatever_the_chunks(tmp_path, tissue):
    """A run of a U-Net with batch norms gives the same bytes for any chunk shape."""
    config = settings(tmp_path / "model", tissue, "residual_unet", steps=2, validate_every=2)
    train(config)
    stored = load_file(tmp_path / "model" / "weights.safetensors")
    assert any(name.endswith("running_mean") and value.any() for name, value in stored.items())
    found = []
    for chunk in ([16, 40, 40], [16, 24, 40]):
        file = write_run(
            tmp_path / str(chunk[0]),
            input={"image": tissue["image"]},
            inference={"model": str(tmp_path / "model" / "card.yaml")},
            chunk_shape=chunk,
            storage_chunk_shape=[16, 8, 40],
        )
        found.append(results(run(file)))
    assert found[0] == found[1]
    assert len(np.unique(np.frombuffer(found[0]["affinities"], np.uint8))) > 10


@pytest.mark.parametrize("thickness", [4, 8])
def test_levels_of_two_voxels_are_refused_in_bfloat16_on_a_cpu(tmp_path, tissue, thickness):
    """bfloat16 on a CPU is refused for levels two voxels thick: torch reads uninitialised memory there."""
    changes = {"patch_shape": (thickness, 16, 16), "overlap": (0, 0, 0), "precision": "bfloat16", "device": "cpu"}
    with pytest.raises(ConfigError, match="two voxels thick"):
        TrainingModule(settings(tmp_path, tissue, "residual_unet", **changes))
    TrainingModule(settings(tmp_path, tissue, "residual_unet", **{**changes, "precision": "float32"}))
    TrainingModule(settings(tmp_path, tissue, "residual_unet", **{**changes, "patch_shape": (12, 16, 16)}))


def test_gates_that_pool_to_two_voxels_are_refused_too(tmp_path, tissue):
    """bfloat16 on a CPU is refused if a gate, which halves a level and rounds up, becomes two voxels thick."""
    changes = {"patch_shape": (12, 16, 16), "precision": "bfloat16", "device": "cpu"}
    TrainingModule(settings(tmp_path, tissue, "residual_unet", **changes))  # 12, 6, 3
    with pytest.raises(ConfigError, match="two voxels thick"):
        TrainingModule(settings(tmp_path, tissue, "rignet", **changes))
    TrainingModule(settings(tmp_path, tissue, "rignet", **{**changes, "precision": "float32"}))


@pytest.mark.parametrize("patch", [(4, 16, 16), (8, 16, 16), (9, 17, 16), (7, 20, 21)])
def test_the_patch_that_a_refusal_names_is_accepted(tmp_path, tissue, patch):
    """The remedy for a patch that does not fit passes all rules, also that of two voxels in bfloat16."""
    changes = {"overlap": (0, 0, 0), "precision": "bfloat16", "device": "cpu"}
    with pytest.raises(ConfigError, match="the nearest patch that fits is") as caught:
        TrainingModule(settings(tmp_path, tissue, "residual_unet", **changes, patch_shape=patch))
    named = json.loads(re.search(r"fits is (\[.*?\])", str(caught.value))[1])
    TrainingModule(settings(tmp_path, tissue, "residual_unet", **changes, patch_shape=tuple(named)))


def test_named_sizes_are_those_of_the_architecture(tmp_path, tissue):
    """A named size means that of the chosen architecture, and an unknown size or architecture is refused."""
    config = settings(tmp_path, tissue, "residual_unet", arguments="tiny")
    assert arguments_of(config) == {**SIZES["tiny"], "out_channels": 3}
    assert named_arguments("gamma_net_3d", "base")["steps"] == 8
    for architecture, size in (("residual_unet", "base"), ("identity", "tiny")):
        with pytest.raises(ModelError, match="it must be a table"):
            named_arguments(architecture, size)
    with pytest.raises(ModelError, match="there are gamma_net_3d"):
        named_arguments("nothing", "tiny")
