"""A training survives the death of its process."""

import signal
import subprocess
import sys
import time

import yaml

from pipeline.config.reading import parse_config
from pipeline.training.callbacks import CHECKPOINT
from pipeline.training.config import TrainConfig
from pipeline.training.trainer import train
from tests.training.trainings import MINI, settings, stored_cubes

MIXED = {"preset": "pytc", "margin": 2, "misalignment_voxels": 2, "mixup": 0.3, "warp": 0.3, "elastic": 0}


def test_a_training_killed_with_signal_9_goes_on_to_the_same_bits(tmp_path):
    """A training killed with SIGKILL resumes to the same weights, log and card, byte for byte."""
    data = settings(tmp_path / "whole", precision="float32", steps=24, pictures=False).model_dump(mode="json")
    data["volumes"] = [stored_cubes(tmp_path, [0, 0, 0], [16, 32, 32])]
    data["validation"] = stored_cubes(tmp_path, [16, 0, 0], [24, 32, 32])
    data |= {"augmentation": MIXED, "sampling": {"objects": 2}, "arguments": {**MINI, "steps": 3}}
    data |= {"rule": {"kind": "truncated", "window": 2}}
    train(parse_config(data, TrainConfig))
    data["output"] = str(tmp_path / "parts")
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(data))
    kill_after_a_checkpoint(file, tmp_path / "parts")
    assert train(parse_config(data, TrainConfig)).steps == 24
    for name in ("weights.safetensors", "log.jsonl", "card.yaml"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


def kill_after_a_checkpoint(file, folder):
    """Train in a process of its own, and kill it as soon as it has written its first checkpoint."""
    with subprocess.Popen([sys.executable, "-m", "workflows.cli", "train", str(file)]) as process:
        while not (folder / CHECKPOINT).exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
