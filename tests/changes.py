"""Runs in which every part is present, and another value for each setting: ``tests/runs/test_changes.py`` uses them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.models.spec import bundled_folder
from tests.runs import write_run, write_volume

SHAPE = (20, 24, 28)
CHUNK = [10, 12, 14]
FAR = [0, 0, -4]
NEURONS = ("result", "supervoxels")
"""The volumes of every run that makes neurons."""
OFFSETS = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], FAR]
OTHERS = [{"what": "foreground", "channels": 7}, {"what": "membranes", "channels": 1}]

POD = {
    "node_selector": {"kind": "fast"},
    "node_affinity": {"zone": ["a", "b"]},
    "tolerations": [{"key": "dedicated", "value": "em", "effect": "NoSchedule"}],
    "priority_class": "low",
    "runtime_class": "nvidia",
    "scratch_gb": 20.0,
}
WORKERS = {
    **POD,
    "count": 5,
    "cpus": 2,
    "gpus": 1,
    "memory_gb": 8.0,
    "threads": 2,
    "walltime": "02:00:00",
    "gpus_per_node": 4,
    "array_limit": 10,
    "gpu_resource": "amd.com/gpu",
}
JOB = {
    **{"queue": "long", "account": "lab", "qos": "long", "constraint": "a100", "reservation": "course"},
    **{"nodelist": "n7", "exclude": "n1", "licenses": "matlab:1", "tmp_gb": 2.0, "comment": "mouse 7", "wckey": "k"},
    "options": ["--nice=100"],
}
TABLES_OF_JOBS = ("cluster", "cluster.driver", "cluster.workers", "cluster.inference_workers")
VALUES: dict[str, Any] = {
    "run_directory": "elsewhere",
    "chunk_shape": [20, 12, 14],
    "storage_chunk_shape": [5, 12, 14],
    "input.image": "other/image.zarr",
    "input.affinities": "other/affinities.zarr",
    "input.membranes": "other/membranes.zarr",
    "input.heads": {"affinities": "other/affinities.zarr", "membranes": "membranes.zarr"},
    "input.labels": "other/nuclei.zarr",
    "input.affinity_offsets": [[0, -1, 0], [-1, 0, 0], [0, 0, -1]],
    "input.mask": "other/mask.zarr",
    "input.start": [2, 0, 0],
    "input.stop": [18, 24, 28],
    "inference.model": "./other/model",
    "inference.batch_size": 2,
    "inference.device": "cpu",
    "inference.gpu": "NVIDIA A100",
    "inference.precision": "bfloat16",
    "inference.threads": 2,
    "inference.augmentation": "flips",
    "inference.augmentation_rule": "min",
    "inference.compile": True,
    "inference.patch_shape": [10, 10, 10],
    "inference.overlap": [2, 2, 2],
    "inference.heads": ["affinities", "foreground"],
    "inference.any_resolution": True,
    "supervoxels.source": "membranes",
    "supervoxels.mode": "section",
    "supervoxels.threshold": 0.4,
    "supervoxels.max_distance_nm": 40,
    "supervoxels.filter_width": 5,
    "supervoxels.borders": "evidence",
    "supervoxels.border_level": 0.7,
    "agglomeration.linkage": "mean",
    "agglomeration.quantile": 0.25,
    "agglomeration.far_offsets": [FAR],
    "agglomeration.across_sections": False,
    "agglomeration.stop_score": 0.1,
    "segmentation.kind": "objects",
    "segmentation.head": "contours",
    "segmentation.lowest_threshold": 0.2,
    "segmentation.connectivity": 26,
    "segmentation.median": [3, 5, 5],
    "segmentation.within": {"contours": {"above": 0.1}},
    "segmentation.seed_threshold": 0.95,
    "segmentation.seeds_within": {"contours": {"below": 0.5}},
    "segmentation.min_seed_size": 3,
    "segmentation.seedless": "keep",
    "segmentation.threshold": 0.9,
    "segmentation.min_size": 5,
    "segmentation.min_size_threshold": 0.2,
    "evaluation.labels": "other/truth.zarr",
    "evaluation.skeletons": "other/lines.npz",
    "evaluation.start": [1, 0, 0],
    "evaluation.stop": [19, 24, 28],
    "downsample.levels": 2,
    "downsample.volumes": ["result"],
    "meshes.smallest_voxels": 500,
    "skeletons.smallest_voxels": 500,
    "skeletons.scale": 3.0,
    "skeletons.const_nm": 100.0,
    "skeletons.voxel_nm": 0.0,
    "organelles.volumes": {"nuclei": "other/nuclei.zarr"},
    "execution.executor": "dask",
    "execution.workers": 3,
    "execution.threads_per_worker": 2,
    "execution.scheduler": "tcp://host:8786",
    "execution.max_in_flight": 3,
    "execution.attempts": 4,
    "execution.backoff_seconds": 2.0,
    "execution.lease_seconds": 30.0,
    "execution.timeout_seconds": 9.0,
    "execution.metrics": "127.0.0.1:9095",
    "execution.dashboard": "127.0.0.1:8787",
    "cluster.kind": "slurm",
    "cluster.interface": "ib0",
    "cluster.ports": "40000-40100",
    "cluster.namespace": "lab",
    "cluster.image": "petaseg:1",
    "cluster.claim": "data",
    "cluster.secrets": ["keys"],
    "cluster.image_pull_secret": "pull",
    "cluster.kubernetes.user": 2000,
    "cluster.kubernetes.group": 3000,
    "cluster.kubernetes.supplemental_groups": [4000],
    "cluster.kubernetes.service_account": "bucket-reader",
    "cluster.kubernetes.bind_role": False,
    "cluster.kubernetes.claims": [{"claim": "lab", "path": "/lab", "sub_path": "ada", "read_only": True}],
    "cluster.kubernetes.labels": {"team": "em"},
    "cluster.kubernetes.annotations": {"example.org/note": "first"},
    "cluster.kubernetes.queue": "em",
    "cluster.kubernetes.image_pull_policy": "Always",
    "cluster.kubernetes.network_policy": True,
    "cluster.kubernetes.outside_ports": [443],
    **{f"cluster.driver.{key}": value for key, value in POD.items()},
    "cluster.driver.gpu_resource": "amd.com/gpu",
    "cluster.driver.cpus": 2,
    "cluster.driver.memory_gb": 8.0,
    "cluster.driver.walltime": "1-00:00:00",
    "cluster.driver.restarts": 3,
    "cluster.driver.mail_user": "ada@lab.org",
    "cluster.driver.mail_type": ["FAIL"],
    **{f"{table}.{key}": value for key, value in JOB.items() for table in TABLES_OF_JOBS},
    **{f"cluster.workers.{key}": value for key, value in WORKERS.items()},
    **{f"cluster.inference_workers.{key}": value for key, value in WORKERS.items()},
    "cluster.prices.cpu_hour": 0.5,
    "cluster.prices.gpu_hour": 2.0,
    "cluster.prices.currency": "EUR",
}
"""Key of the run file -> another value than that of the runs below."""

CARD_VALUES: dict[str, Any] = {
    "name": "another",
    "architecture": "identity",
    "arguments": {"out_channels": 3},
    "weights": "renamed.safetensors",
    "sha256": hashlib.sha256(b"other weights").hexdigest(),
    "patch_shape": [10, 10, 10],
    "overlap": [2, 2, 2],
    "normalisation": {"offset": 1.0, "scale": 255.0},
    "offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-3, 0, 0]],
    "other_channels": [{"what": "membranes", "channels": 1}],
    "activation": "none",
    "resolution_nm": [8.5, 8.5, 8.5],
    "threshold": 0.61,
    "training_data": "another",
    "scores": {"voi": 1.0},
    "licence": "another",
}
"""Field of the model's card -> another value than that of the card below."""


def write_inputs(folder: Path, seed: int) -> None:
    """One volume of every kind, skeletons and a model; another seed gives other voxels and other weights."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / "image.zarr", rng.integers(0, 256, SHAPE, np.uint8))
    write_volume(folder / "affinities.zarr", rng.integers(0, 256, (len(OFFSETS), *SHAPE), np.uint8))
    write_volume(folder / "mask.zarr", rng.integers(0, 2, SHAPE, np.uint8))
    write_volume(folder / "truth.zarr", rng.integers(0, 9, SHAPE, np.uint32))
    write_volume(folder / "nuclei.zarr", np.random.default_rng(seed + 7).integers(0, 4, SHAPE, np.uint32))
    write_volume(folder / "membranes.zarr", rng.integers(0, 256, SHAPE, np.uint8))
    lines = {"nodes_nm": [[8.0, 8, 8], [80, 150, 200.0 - seed]], "edges": [[0, 1]], "skeleton": [1, 1]}
    np.savez(folder / "lines.npz", **lines)
    shutil.copytree(bundled_folder("fib25-tiny"), folder / "model", dirs_exist_ok=True)
    heads = {"offsets": OFFSETS, "other_channels": OTHERS}
    change_card(folder / "model", patch_shape=[12, 12, 12], overlap=[4, 4, 4], threshold=0.5, **heads)
    if seed:
        set_weights(folder / "model", b"weights of another training")


def change_card(folder: Path, **fields: Any) -> None:
    card = yaml.safe_load((folder / "card.yaml").read_text())
    assert all(card.get(key) != value for key, value in fields.items()), "a change must change something"
    (folder / "card.yaml").write_text(yaml.safe_dump({**card, **fields}))


def set_weights(folder: Path, data: bytes) -> None:
    (folder / "weights.safetensors").write_bytes(data)
    change_card(folder, sha256=hashlib.sha256(data).hexdigest())


def write_runs(folder: Path) -> Path:
    """A folder with a run file for each kind of input, such as ``image.yaml``; every part of a run is present."""
    write_inputs(folder, 0)
    write_inputs(folder / "other", 1)
    common = {
        "chunk_shape": CHUNK,
        "storage_chunk_shape": CHUNK,
        "agglomeration": {"linkage": "quantile", "stop_score": 0.05},
        "evaluation": {"labels": "truth.zarr", "skeletons": "lines.npz"},
        "downsample": {},
        "meshes": {},
        "skeletons": {},
        "measures": {},
        "organelles": {"volumes": {"nuclei": "nuclei.zarr"}},
    }
    heads = {name: f"{name}.zarr" for name in ("affinities", "membranes")}
    for name in ("image", "affinities", "membranes", "heads"):
        given = {name: heads if name == "heads" else f"{name}.zarr"}
        given |= {"affinity_offsets": OFFSETS} if name == "affinities" else {}
        network = {"inference": {"model": "./model", "device": "cpu"}} if name == "image" else {}
        levels = {"downsample": {"volumes": [*NEURONS, *(["heads", "image"] if network else [])]}}
        file = write_run(folder, **{**common, **levels}, **network, input={**given, "mask": "mask.zarr"})
        file.rename(folder / f"{name}.yaml")
    pair = {"foreground": "membranes.zarr", "contours": "other/membranes.zarr"}
    del common["agglomeration"]
    for kind, more in (
        ("mask", {"median": [3, 3, 3]}),
        ("objects", {"seed_threshold": 0.9, "seeds_within": {"contours": {"below": 0.99}}}),
    ):
        table = {"kind": kind, "head": "foreground", "threshold": 0.5, **more}
        file = write_run(folder, **common, input={"heads": pair, "mask": "mask.zarr"}, segmentation=table)
        file.rename(folder / f"{kind}.yaml")
    write_classes_run(folder, common)
    given = {"labels": "nuclei.zarr", "image": "image.zarr", "mask": "mask.zarr"}
    file = write_run(folder, **common, input=given, segmentation={"kind": "labels"})
    file.rename(folder / "labels.yaml")
    return folder


def write_classes_run(folder: Path, common: dict[str, Any]) -> None:
    """A run file for a class map of the first of two heads of classes; it has no meshes and no skeletons."""
    tables = {key: table for key, table in common.items() if key not in ("meshes", "skeletons")} | {
        "evaluation": {"labels": "truth.zarr"}
    }
    given = {"classes": "affinities.zarr", "contours": "other/affinities.zarr"}
    inputs = {"heads": given, "mask": "mask.zarr"}
    file = write_run(folder, **tables, input=inputs, segmentation={"kind": "classes", "head": "classes"})
    file.rename(folder / "classes.yaml")
