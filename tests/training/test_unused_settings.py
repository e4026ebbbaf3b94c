"""What a user sets in a training file has an effect, or is refused or named; nothing is ignored in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.reading import apply_overrides, parse_config
from pipeline.config.unused import refuse, unused
from pipeline.errors import ConfigError
from pipeline.training.augmentation.settings import PRESETS
from pipeline.training.config import TrainConfig
from pipeline.training.unused import ROWS, STRENGTHS, TrainingCase, unused_keys

BASE: dict[str, Any] = {"output": "o", "name": "n", "synthetic": {}}
VOLUME = {"image": "i", "labels": "l"}
RBP = {"kind": "rbp", "reference_stopping": True}
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("train*.yaml"))


def config_of(*overrides: str) -> TrainConfig:
    return parse_config(apply_overrides(BASE, overrides), TrainConfig)


def named(config: TrainConfig, cluster: str | None = None) -> set[str]:
    """The keys that are refused or named."""
    return {given.key for each in unused(config, TrainingCase(config, cluster), ROWS) for given in each.given}


PAIRS = [
    ("momentum=0.9", "optimiser=sgd"),
    ("plateau_validations=5", "schedule=plateau"),
    ("sampling.patches_per_chunk=9", "sampling.chunk_shape=[96,160,160]"),
    ("sampling.reject=0.5", "sampling.objects=2"),
    ("sampling.reject=0.5", "sampling.foreground=2"),
    ("sampling.valid=0.9", "volumes=[{image: i, labels: l, mask: m}]"),
    ("sampling.apart=true", "devices=2"),
    ("augmentation.rescale_in_plane=true", "augmentation.rescale=0.1"),
    ("augmentation.warp_degrees=5", "augmentation.warp=0.1"),
    ("augmentation.warp_stretch=0.2", "augmentation.warp=0.1"),
    ("augmentation.elastic_voxels=5", "augmentation.elastic=0.1"),
    ("augmentation.elastic_spacing=5", "augmentation.elastic=0.1"),
    ("augmentation.misalignment_voxels=5", "augmentation.misalignment=0.2"),
    ("augmentation.misalignment_slip=0.1", "augmentation.misalignment=0.2"),
    ("augmentation.misalignment_rotation=0.1", "augmentation.misalignment=0.2"),
    ("augmentation.missing_most=5", "augmentation.missing_sections=0.1"),
    ("augmentation.missing_partial=0.5", "augmentation.missing_sections=0.1"),
    ("augmentation.blurred_most=5", "augmentation.blurred_sections=0.1"),
    ("augmentation.blurred_voxels=3", "augmentation.blurred_sections=0.1"),
    ("augmentation.motion_voxels=5", "augmentation.motion_blur=0.1"),
    ("augmentation.cut_size=0.5", "augmentation.cut_blur=0.1"),
    ("augmentation.cut_size=0.5", "augmentation.cut_noise=0.1"),
]
"""A key, and what makes it useful."""
OFF = [f"augmentation.{change}=0" for change in STRENGTHS]
REFUSED = {"momentum", "plateau_validations", "sampling.patches_per_chunk", "sampling.reject"}


@pytest.mark.parametrize(("override", "beside"), PAIRS)
def test_a_key_is_named_or_refused_until_another_uses_it(override: str, beside: str) -> None:
    """Without the other key it is told, and refused if it contradicts; with the other key it is not told."""
    key, partner = override.partition("=")[0], beside.partition("=")[0]
    off = [each for each in OFF if not each.startswith(f"{partner}=")]
    more = [f"validation={VOLUME}"] if partner == "volumes" else []
    alone = config_of(override, *OFF)
    assert named(alone) == {key}
    assert key not in named(config_of(override, beside, *off, *more))
    if key in REFUSED:
        with pytest.raises(ConfigError, match=rf"{key} is .*, which is not used with"):
            unused_keys(alone)
    else:
        assert len(unused_keys(alone)) == 1


@pytest.mark.parametrize(
    ("override", "beside"),
    [
        ("threshold_box=[32,32,32]", "threshold=0.4"),
        ("threshold_box=[32,32,32]", "choose_threshold=false"),
        ("choose_threshold=false", "threshold=0.4"),
        ("rule.tolerance=0.5", f"rule={RBP}"),
        ("rule.divergence=20.0", f"rule={RBP}"),
        ("offsets=[[-1,0,0],[0,-1,0],[0,0,-1],[-3,0,0],[0,-3,0],[0,0,-3],[-9,0,0],[0,-9,0],[0,0,-9],[-18,0,0],[0,-18,0],"
         "[0,0,-18]]", "targets=[{what: foreground}]"),
    ],
)  # fmt: skip
def test_a_key_that_another_one_replaces_is_named(override: str, beside: str) -> None:
    key = override.partition("=")[0]
    order = (beside, override) if key.startswith("rule") else (override, beside)
    assert key in named(config_of(*order))
    if not key.startswith("rule"):
        assert key not in named(config_of(override))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_nothing_in_vain(preset: str) -> None:
    """What a preset sets is not told, also where the file switches one of its changes off."""
    assert not named(config_of(f"augmentation={preset}"))
    off = {"preset": preset, **dict.fromkeys(STRENGTHS, 0)}
    assert not named(config_of(f"augmentation={off}"))
    assert named(config_of(f"augmentation={ {**off, 'missing_most': 7} }")) == {"augmentation.missing_most"}


def test_keys_of_the_cluster_are_named_where_nothing_reads_them() -> None:
    """On this machine all of them; in a job of SLURM those of Kubernetes, of workers, and the prices."""
    config = config_of("cluster.queue=long", "cluster.image=i", "cluster.prices.cpu_hour=1", "cluster.ports=4000-4100")
    always = {"cluster.prices.cpu_hour", "cluster.ports"}
    assert named(config) == {"cluster.queue", "cluster.image", *always}
    assert named(config, "slurm") == {"cluster.image", *always}


def test_the_name_of_a_gpu_is_named_where_a_training_has_none() -> None:
    """The device's name is read where the job asks for GPUs: on Kubernetes, with ``device: cuda``."""
    key = "cluster.driver.gpu_resource"
    for device, cluster, told in (("cuda", "kubernetes", False), ("cpu", "kubernetes", True), ("cuda", "slurm", True)):
        assert named(config_of(f"{key}=amd.com/gpu", f"device={device}"), cluster) == ({key} if told else set())


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_say_nothing_in_vain(file: Path) -> None:
    config = parse_config(yaml.safe_load(file.read_text()), TrainConfig)
    assert not named(config)
    refuse(unused(config, TrainingCase(config), ROWS))


def test_every_row_is_about_keys_that_exist() -> None:
    for row in ROWS:
        for key in row.keys:
            table: Any = config_of(f"rule={RBP}", "cluster.inference_workers=null")
            for part in key.split("."):
                assert part in type(table).model_fields, key
                table = getattr(table, part)
                if table is None:
                    break
