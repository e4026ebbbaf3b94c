"""Every change of a run file, of an input or of a stage's arithmetic changes exactly the fingerprints that it should.

The table of changes is ``pipeline.runs.changes``; the other values stand in ``tests/changes.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pipeline.config.reading import parse_config
from pipeline.config.reference import keys_of
from pipeline.geometry import BoundingBox
from pipeline.models.spec import ModelCard
from pipeline.runs.chain import STAGES, with_readers
from pipeline.runs.changes import CARD, EFFECTS, EVERYTHING, KEYS, PARTS, RUNS, SAME, Change, with_table
from pipeline.runs.edit_log import EditLog
from pipeline.runs.run import Run
from pipeline.segmentation.edits import Edit
from pipeline.stages import opened
from pipeline.stages.apply_edits import ApplyEdits
from pipeline.storage import ObjectStore
from pipeline.volumes import create_volume
from tests.changes import CARD_VALUES, SHAPE, VALUES, change_card, set_weights, write_runs
from tests.runs import results, run

GIVEN = ("affinities", "membranes", "heads", "mask", "objects", "classes", "labels")
OF_OBJECTS = (
    *("lowest_threshold", "connectivity", "within", "seed_threshold", "seeds_within", "min_seed_size"),
    "seedless",
)
GPU = ("inference.device=cuda", "inference.gpu=NVIDIA H200")

# -- the runs -------------------------------------------------------------------------------------------------------


def open_run(folder: Path, kind: str, *overrides: str) -> Run:
    """One of ``RUNS``, with overrides, which replace those of the kind."""
    opened.forget()
    keys = {override.partition("=")[0] for override in overrides}
    of_kind = {
        "gpu": GPU,
        "mean": ("agglomeration.linkage=mean",),
        "section": ("supervoxels.mode=section",),
        "evidence": ("supervoxels.borders=evidence",),
        "flips": ("inference.augmentation=flips",),
    }.get(kind, ())
    given = [override for override in of_kind if override.partition("=")[0] not in keys]
    name = kind if kind in GIVEN else "image"
    return Run.open(folder / f"{name}.yaml", [*given, *overrides])


def fingerprints(run: Run) -> dict[str, str]:
    return {stage.name: stage.fingerprint for stage in run.stages}


def changed(before: dict[str, str], after: dict[str, str], *, other_kind: bool = False) -> set[str]:
    """The stages with another fingerprint; other_kind: of those that results of both kinds have."""
    assert other_kind or before.keys() == after.keys()
    return {name for name, value in before.items() if after.get(name, value) != value}


def expected(change: Change, before: dict[str, str]) -> set[str]:
    return set(change.effect.stages) & set(before)


def kinds(change: Change) -> tuple[str, ...]:
    """The runs in which a change is made."""
    return (change.run,) if change.run else ("image", "affinities")


def cases(changes: tuple[Change, ...]) -> list[Any]:
    return [
        pytest.param(change, kind, id=f"{change.what}-{kind}".replace(" ", "-"))
        for change in changes
        for kind in kinds(change)
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run files with an edit in their run directory, and in the one that the change of this key names."""
    folder = write_runs(tmp_path_factory.mktemp("runs"))
    for name in ("run", VALUES["run_directory"]):
        log = EditLog().with_edits([Edit("merge", (1,), (2,))])
        ObjectStore(folder / str(name)).put("edits.json", log.encode())
    return folder


@pytest.fixture(scope="module")
def before(runs: Path) -> Callable[[str], dict[str, str]]:
    """The fingerprints of a run before any change."""
    return cache(lambda kind: fingerprints(open_run(runs, kind)))


# -- keys of the run file -------------------------------------------------------------------------------------------


def test_the_table_knows_every_key_and_every_stage() -> None:
    """A new key, a new field of a card and a new stage must be placed in the table, and each key in every run."""
    assert {change.what for change in KEYS} == set(keys_of()) == set(VALUES)
    assert {change.what for change in CARD} == set(ModelCard.model_fields) == set(CARD_VALUES)
    assert set(EVERYTHING.stages) == {kind.name for kind in STAGES}
    assert {change.effect for change in (*KEYS, *CARD, *PARTS)} <= set(EFFECTS)
    assert len({(change.what, change.run) for change in KEYS}) == len(KEYS)
    for key in keys_of():
        places = {change.run for change in KEYS if change.what == key}
        alone = {
            "input.image": {"image"},
            "input.affinities": {"affinities"},
            "input.membranes": {"membranes"},
            "input.heads": {"heads"},
            "supervoxels.source": {"image", "heads"},
            "agglomeration.across_sections": {"section"},
            "inference.augmentation_rule": {"flips", "upright", "affinities"},
            "input.affinity_offsets": {"image", "affinities", "membranes"},
            "inference.device": {"gpu", "affinities"},
            **{f"segmentation.{name}": {"", "objects"} for name in ("threshold", "min_size")},
            **{f"segmentation.{name}": {"mask"} for name in ("kind", "median")},
            **{f"segmentation.{name}": {"objects"} for name in OF_OBJECTS},
            "segmentation.head": {"objects", "classes"},
            "input.mask": {"", "classes", "labels"},
            "input.labels": {"labels"},
            "supervoxels.border_level": {"evidence"},
        }
        whole = ({""}, {"image", "affinities"}, {"cpu", "gpu", "affinities"}, {"mean", "quantile"})
        assert places in (*whole, alone.get(key)), key


@pytest.mark.parametrize(("change", "kind"), cases(KEYS))
def test_a_key_changes_exactly_these_stages(
    runs: Path, before: Callable[[str], dict[str, str]], change: Change, kind: str
) -> None:
    override = f"{change.what}={json.dumps(VALUES[change.what])}"
    other_kind = change.what in ("segmentation.kind", "downsample.volumes")  # these change which stages there are
    common = ["segmentation.median=null"] if change.what == "segmentation.kind" else []  # a key of one kind only
    run, first = open_run(runs, kind, override, *common), open_run(runs, kind, *common)
    assert run.config != first.config, "the value is that of before"
    found = changed(fingerprints(first), fingerprints(run), other_kind=other_kind)
    assert found == expected(change, before(kind))


def test_a_key_that_is_left_out_is_its_default(runs: Path, before: Callable[[str], dict[str, str]]) -> None:
    """A run file that spells out every default has the fingerprints of one that leaves them out."""
    file = runs / "image.yaml"
    table = yaml.safe_load(file.read_text())
    full = json.loads(parse_config(table).model_dump_json())
    (runs / "full.yaml").write_text(yaml.safe_dump(full))
    opened.forget()
    assert fingerprints(Run.open(runs / "full.yaml")) == before("image")


# -- parts of inputs ------------------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray] = lambda array: array, **spec: Any) -> None:
    """Store a volume anew, with other voxels or another specification."""
    volume = opened.source(str(path))
    array = change(volume.read(volume.spec.bounds))
    box = spec.pop("bounds", None) or BoundingBox.from_shape(array.shape[-3:], volume.spec.bounds.start)
    new = replace(volume.spec, dtype=array.dtype, bounds=box, **spec)
    shutil.rmtree(path)
    create_volume(str(path), new).write(box, array)


def one_voxel(array: np.ndarray) -> np.ndarray:
    """Another value in one voxel."""
    array[..., 3, 4, 5] ^= 1
    return array


def all_inputs(folder: Path, do: Callable[[Path], None]) -> None:
    for name in ("image", "affinities", "mask", "truth"):
        do(folder / f"{name}.zarr")


def move(folder: Path) -> None:
    """All inputs lie elsewhere, and the run files say so."""
    for name in ("image", "affinities", "mask", "truth"):
        (folder / f"{name}.zarr").rename(folder / f"moved-{name}.zarr")
    (folder / "lines.npz").rename(folder / "moved-lines.npz")
    for file in (folder / "image.yaml", folder / "affinities.yaml"):
        text = file.read_text()
        for name in ("image.zarr", "affinities.zarr", "mask.zarr", "truth.zarr", "lines.npz"):
            text = text.replace(f": {name}", f": moved-{name}")
        file.write_text(text)


def as_precomputed(path: Path) -> None:
    """A volume becomes a precomputed layer at the same place."""
    volume = opened.source(str(path))
    array = volume.read(volume.spec.bounds)
    shutil.rmtree(path)
    create_volume(f"precomputed://{path}", volume.spec).write(volume.spec.bounds, array)


def other_lines(folder: Path) -> None:
    shutil.copy(folder / "other" / "lines.npz", folder / "lines.npz")


SHIFTED = BoundingBox.from_shape(SHAPE, (1, 0, 0))
VOLUMES = {first: (first, "mask", "truth", "nuclei") for first in ("image", "affinities")}


def every(kind: str, do: Callable[[Path], None]) -> Callable[[Path], None]:
    """The same change of all volumes of a run, which must cover the same voxels of the same size."""
    return lambda folder: [do(folder / f"{name}.zarr") for name in VOLUMES[kind]]  # type: ignore[return-value]


CHANGE: dict[str, Callable[[Path], None]] = {
    "voxels of the image": lambda folder: rewrite(folder / "image.zarr", one_voxel),
    "voxel size of the image": every("image", lambda path: rewrite(path, resolution_nm=(9.0, 8.0, 8.0))),
    "offset of the image": every("image", lambda path: rewrite(path, bounds=SHIFTED)),
    "extent of the image": every("image", lambda path: rewrite(path, lambda array: array[:-1])),
    "version of torch": lambda folder: None,  # the test below gives torch another version
    "voxels of the mask": lambda folder: rewrite(folder / "mask.zarr", one_voxel),
    "voxels of the affinities": lambda folder: rewrite(folder / "affinities.zarr", one_voxel),
    "type of the affinities": lambda folder: rewrite(folder / "affinities.zarr", lambda a: (a / 255).astype("f4")),
    "voxel size of the affinities": every("affinities", lambda path: rewrite(path, resolution_nm=(9.0, 8.0, 8.0))),
    "offset of the affinities": every("affinities", lambda path: rewrite(path, bounds=SHIFTED)),
    "true labels": lambda folder: rewrite(folder / "truth.zarr", one_voxel),
    "true skeletons": other_lines,
    "voxels of organelles": lambda folder: rewrite(folder / "nuclei.zarr", one_voxel),
    "place of an input": move,
    "storage chunks of an input": lambda folder: all_inputs(
        folder, lambda path: rewrite(path, storage_chunk=(8, 8, 8))
    ),
    "format of an input": lambda folder: all_inputs(folder, as_precomputed),
}


@pytest.mark.parametrize(("change", "kind"), cases(PARTS))
def test_a_part_of_an_input_changes_exactly_these_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, kind: str
) -> None:
    folder = write_runs(tmp_path)
    before = fingerprints(open_run(folder, kind))
    CHANGE[change.what](folder)
    if change.what == "version of torch":
        monkeypatch.setattr(torch, "__version__", "0.0")
    assert changed(before, fingerprints(open_run(folder, kind))) == expected(change, before)


def test_every_part_in_the_table_is_changed_here() -> None:
    assert {change.what for change in PARTS} == set(CHANGE)


@pytest.mark.parametrize(("change", "kind"), cases(CARD))
def test_a_field_of_the_card_changes_exactly_these_stages(tmp_path: Path, change: Change, kind: str) -> None:
    folder = write_runs(tmp_path)
    before = fingerprints(open_run(folder, kind))
    if change.what == "sha256":
        set_weights(folder / "model", b"other weights")
    elif change.what == "weights":
        (folder / "model" / "weights.safetensors").rename(folder / "model" / CARD_VALUES["weights"])
        change_card(folder / "model", weights=CARD_VALUES["weights"])
    else:
        change_card(folder / "model", **{change.what: CARD_VALUES[change.what]})
    assert changed(before, fingerprints(open_run(folder, kind))) == expected(change, before)


# -- the arithmetic of a stage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STAGES, ids=lambda kind: kind.name)
def test_other_arithmetic_changes_a_stage_and_those_that_read_it(
    runs: Path, before: Callable[[str], dict[str, str]], monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """Another ``algorithm`` of a stage changes its fingerprint and that of each stage that reads its products."""
    name = next(name for name in ("image", "mask", "objects", "classes", "labels") if kind.name in before(name))
    first = before(name)
    monkeypatch.setattr(kind, "algorithm", kind.algorithm + 1)
    readers = with_readers(kind.name, without=SAME if kind is ApplyEdits else "")
    assert changed(first, fingerprints(open_run(runs, name))) == set(readers) & set(first)


def test_the_readers_of_a_stage_follow_from_the_chain() -> None:
    """Stages that read others on the way count, and a stage that is left out hides those that read only it."""
    assert set(with_readers("relabel")) >= {"relabel", "evaluate_segmentation"}
    assert not {"predict_heads", "build_region_graph", "write_supervoxels"} & set(with_readers("relabel"))
    others = {"downsample_image", "take_labels"}
    assert with_readers("predict_heads") == tuple(kind.name for kind in STAGES if kind.name not in others)
    without = with_readers("agglomerate", without="write_supervoxels")
    assert set(with_readers("agglomerate")) - set(without) == {"write_supervoxels", "downsample_supervoxels"}


def test_a_change_back_gives_the_fingerprints_of_before(runs: Path, before: Callable[[str], dict[str, str]]) -> None:
    rules = {"mean", "quantile", "evidence", "section", "flips", "upright"}
    assert set(RUNS) == {"", "image", *GIVEN, "cpu", "gpu", *rules}
    for kind in ("image", *GIVEN, "gpu", "mean", "section", "flips"):
        assert fingerprints(open_run(runs, kind)) == before(kind)
    assert before("cpu") == before("quantile") == before("image")


def test_another_linkage_keeps_the_supervoxels_and_gives_the_bytes_of_a_new_run(tmp_path: Path) -> None:
    """Supervoxels are not written again for another linkage, and are those that a new run with it writes."""
    folder = write_runs(tmp_path)
    file = folder / "affinities.yaml"
    run(file, "agglomeration.linkage=mean")
    written = newest(folder / "run" / "supervoxels.zarr")
    again = results(run(file))
    assert newest(folder / "run" / "supervoxels.zarr") == written
    assert again == results(run(file, f"run_directory={folder}/new"))


def newest(folder: Path) -> int:
    return max(path.stat().st_mtime_ns for path in folder.rglob("*"))


# -- the page -------------------------------------------------------------------------------------------------------


def test_the_page_of_what_is_computed_again_is_up_to_date(request: pytest.FixtureRequest) -> None:
    """The table in docs/running.md is what ``python -m pipeline.runs.changes docs/running.md`` prints."""
    page = (request.config.rootpath / "docs" / "running.md").read_text()
    assert page == with_table(page)
