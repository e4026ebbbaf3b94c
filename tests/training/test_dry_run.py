"""`petaseg train --dry-run` makes every check of a training, writes nothing, and says what a run could use."""

import numpy as np
import pytest

from pipeline.errors import ConfigError, ModelError, VolumeError
from pipeline.models.spec import load_card
from pipeline.training.dry_run import dry_run
from pipeline.training.trainer import train
from tests.training.trainings import settings, stored_cubes
from tests.training.volumes import cubes, store

NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
CONTOURS = {"what": "contours"}


def test_a_sound_training_is_described_and_nothing_is_written(tmp_path):
    """A sound training is described, and its output folder is not made."""
    found = dry_run(settings(tmp_path / "out", targets=({"what": "affinities", "offsets": NEAREST}, CONTOURS)))
    assert not (tmp_path / "out").exists()
    assert (found.steps, found.done, [head.name for head in found.heads]) == (6, 0, ["affinities", "contours"])
    assert found.use == (
        "A run can make of it: neurons (from affinities); masks and objects (from contours); volumes: affinities, "
        "contours."
    )


def test_targets_that_no_run_can_use_are_called_so(tmp_path):
    """A model without affinities of the nearest neighbours and without membranes is said to give no neurons."""
    for targets in ((CONTOURS,), ({"what": "affinities", "offsets": ((0, -1), (-1, 0))},)):
        found = dry_run(settings(tmp_path, targets=targets))
        assert found.use.startswith("A run can make of it: no neurons, which need affinities that begin with the")
        assert found.use.endswith(f"; volumes: {targets[0]['what']}.")


def test_heads_that_cannot_be_stored_are_named(tmp_path):
    """Values without limits, and two heads of one name, are no volumes; membranes are neurons too."""
    depth = {"what": "instance_distance", "levels": None, "losses": ({"kind": "mse", "activation": "none"},)}
    found = dry_run(settings(tmp_path, targets=({"what": "membranes"}, depth, CONTOURS, CONTOURS)))
    assert found.use == (
        "A run can make of it: neurons (from membranes); volumes: membranes; not instance_distance, contours, which "
        "cannot be stored."
    )


def test_what_training_would_refuse_is_refused(tmp_path):
    """Labels that are not known, another training's checkpoint, patches that do not fit, and no folder: all refused."""
    with pytest.raises(ConfigError, match=r"patch_shape is \[9, 16, 16\]; gamma_net_3d with these arguments takes"):
        dry_run(settings(tmp_path, patch_shape=(9, 16, 16)))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file, so no model can be stored there"):
        dry_run(settings(tmp_path / "file" / "model"))
    with pytest.raises(VolumeError, match="1000 patches in a row"):
        dry_run(settings(tmp_path, sampling={"objects": 1000, "reject": 1.0}))
    train(settings(tmp_path))
    assert dry_run(settings(tmp_path)).done == 6
    with pytest.raises(ModelError, match="belongs to a training with other settings"):
        dry_run(settings(tmp_path, seed=1))


def test_a_batch_norm_that_would_see_one_voxel_is_refused(tmp_path):
    """A patch of one voxel at the lowest level is refused for a batch norm, which takes a variance there."""
    one = {"architecture": "residual_unet", "arguments": {"widths": [2, 2, 2, 2], "norm": "batch"}}
    pools = {
        **one,
        "arguments": {**one["arguments"], "pools": [[2, 2, 2]]},
        "patch_shape": (8, 8, 8),
        "precision": "float32",
    }
    with pytest.raises(ConfigError, match=r"cannot be trained on it .*more than 1 value per channel"):
        dry_run(settings(tmp_path, **pools))
    dry_run(settings(tmp_path, **pools, batch_size=2))


def test_a_training_on_classes_is_checked_and_learned(tmp_path):
    """Classes are of no use for a run; a dry run refuses labels that are no class; the score is class F1."""
    classes = {
        "what": "classes",
        "count": 2,
        "losses": ({"kind": "cross_entropy", "smoothing": 0.1, "balanced": True},),
    }
    with pytest.raises(ConfigError, match=r"a voxel has the label \d+; count is 2, so labels go from 0 to 1"):
        dry_run(settings(tmp_path, targets=(classes,)))
    image, _ = cubes((24, 32, 32))
    volume = store("classes", image, (image > 100).astype(np.uint8))
    data = {"volumes": [volume.model_copy(update={"stop": (16, 32, 32)})]}
    data["validation"] = volume.model_copy(update={"start": (16, 0, 0)})
    fast = {"steps": 60, "validate_every": 30, "learning_rate": 0.01, "ema_decay": 0.5, "augmentation": "none"}
    config = settings(tmp_path / "model", targets=(classes,), **data, **fast)
    assert dry_run(config).use.endswith("; volumes: classes.")
    assert train(config).best.score > 0.75, "with class 1 everywhere it is 0.59"
    card = load_card(tmp_path / "model")
    assert [(c.what, c.channels, c.activation) for c in card.other_channels] == [("classes", 2, "softmax")]
    assert "validation class F1" in card.scores


def test_objects_are_not_pasted_into_classes(tmp_path):
    """copy_paste gives an object a new id, which would be no class: it is refused."""
    with pytest.raises(ValueError, match=r"copy_paste is 0.5 and targets have classes; only labels that are ids"):
        settings(tmp_path, targets=({"what": "classes", "count": 2},), augmentation={"copy_paste": 0.5})


@pytest.mark.parametrize("place", ["image-0.zarr", "image-0.zarr/0", "labels-0.zarr/models/first", "link"])
@pytest.mark.parametrize("act", [dry_run, train])
def test_a_training_does_not_write_into_its_volumes(act, place, tmp_path):
    """A volume, a folder of it, and a link to it are no output; what lies beside the volumes is one."""
    part = stored_cubes(tmp_path, (0, 0, 0), (16, 32, 32))
    (tmp_path / "link").symlink_to("image-0.zarr")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"would write among its voxels: name another folder"):
        act(settings(tmp_path / place, volumes=[part]))
    assert sorted(tmp_path.rglob("*")) == before
    assert dry_run(settings(tmp_path / "model", volumes=[part])).steps == 6
