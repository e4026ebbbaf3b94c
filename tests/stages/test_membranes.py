"""Membranes to neurons: the affinities of membranes, and runs that are made of them, predicted or given."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.runs.report import write_report
from pipeline.runs.run import Run
from pipeline.runs.verify import verify_run
from pipeline.stages import opened
from pipeline.stages.affinities import MembraneSource
from pipeline.stages.heads import HeadSource
from pipeline.volumes import open_volume
from tests.heads import heads_run, write_model
from tests.inference.boxes import patient
from tests.runs import results, run, write_run, write_volume
from workflows.driver import segment

SHAPE = (10, 24, 28)


def membranes(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Three curved sheets of membrane on noise."""
    z, y, x = np.indices(shape)
    sheets = np.minimum(abs(y - 9 - (x // 9)), abs(x - 14 + (y // 12) + (z // 5)))
    noise = np.random.default_rng(seed).integers(0, 60, shape)
    return np.clip(240 - 90 * sheets + noise, 0, 255).astype(np.uint8)


def of_pairs(m: np.ndarray) -> np.ndarray:
    """The definition, voxel by voxel."""
    result = np.zeros((3, *m.shape), np.uint8)
    for axis in range(3):
        for v in np.ndindex(m.shape):
            if v[axis]:
                partner = tuple(i - (a == axis) for a, i in enumerate(v))
                result[(axis, *v)] = 255 - max(m[v], m[partner])
    return result


def given_run(folder: Path, array: np.ndarray, chunk: tuple[int, int, int] = (5, 12, 14), **tables: Any) -> Path:
    given = tables.pop("input", None) or {"membranes": write_volume(folder / "membranes.zarr", array)}
    tables.setdefault("supervoxels", {"threshold": 0.5, "filter_width": 1})
    shapes = {"chunk_shape": list(chunk), "storage_chunk_shape": list(chunk)}
    return write_run(folder, input=given, **shapes, **tables)


@settings(patient, max_examples=30)
@given(st.data())
def test_the_affinities_of_any_box_are_those_of_the_definition(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    start = data.draw(st.tuples(*(st.integers(-3, 3) for _ in range(3))))
    m = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    path = write_volume(tmp_path_factory.mktemp("membranes") / "m.zarr", m, start=start)
    source, whole = MembraneSource(HeadSource("membranes", path, "")), of_pairs(m)
    low = tuple(data.draw(st.integers(0, n - 1)) for n in m.shape)
    high = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(low, m.shape, strict=True))
    box = BoundingBox(low, high)
    np.testing.assert_array_equal(source.read(box.translate(start)), whole[:, *box.slices()])


@settings(patient, max_examples=6)
@given(chunk=st.tuples(st.integers(4, 10), st.integers(8, 24), st.integers(9, 28)))
def test_neurons_of_membranes_do_not_depend_on_the_chunks_and_are_those_of_their_affinities(
    tmp_path_factory: pytest.TempPathFactory, chunk: tuple[int, int, int]
) -> None:
    folder, m = tmp_path_factory.mktemp("run"), membranes()
    found = results(run(given_run(folder / "membranes", m, chunk)))
    place = write_volume(folder / "affinities.zarr", of_pairs(m))
    expected = results(run(given_run(folder / "affinities", m, SHAPE, input={"affinities": place})))
    assert found == expected
    labels = np.frombuffer(found["labels"], np.uint64)
    assert len(np.unique(labels[labels > 0])) > 2


def test_membranes_from_0_to_1_are_those_of_uint8(tmp_path: Path) -> None:
    as_float = write_volume(tmp_path / "float.zarr", membranes().astype(np.float32) / np.float32(255))
    found = results(run(given_run(tmp_path / "a", membranes(), input={"membranes": as_float})))
    assert found == results(run(given_run(tmp_path / "b", membranes())))


def test_a_named_head_is_the_same_as_membranes(tmp_path: Path) -> None:
    """And a run of another program's affinities and membranes takes the affinities, unless it says otherwise."""
    place = write_volume(tmp_path / "m.zarr", membranes())
    other = write_volume(tmp_path / "a.zarr", np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype(np.uint8))
    expected = results(run(given_run(tmp_path / "plain", membranes())))
    named = given_run(tmp_path / "named", membranes(), input={"heads": {"membranes": place}})
    both = given_run(tmp_path / "both", membranes(), input={"heads": {"affinities": other, "membranes": place}})
    assert results(run(named)) == expected
    assert results(run(both)) != expected
    assert results(run(both, "supervoxels.source=membranes")) == expected


def test_a_run_of_membranes_is_resumed_proven_and_scored(tmp_path: Path) -> None:
    truth = write_volume(tmp_path / "truth.zarr", (membranes() < 128).astype(np.uint32))
    file = given_run(tmp_path, membranes(), evaluation={"labels": truth})
    finished = run(file)
    assert all(proof.proven for proof in verify_run(finished, sample=None, seed=0))
    assert segment(str(file)).seconds == {}
    report = write_report(finished)
    stored = json.loads((tmp_path / "run" / "report" / "scores.json").read_text())
    assert stored["scores"]
    assert stored == json.loads(json.dumps(report.to_dict()))


def test_sections_stay_apart_if_that_is_said(tmp_path: Path) -> None:
    """No label is in two sections then, whatever the threshold; else neurons go through them."""
    by_section = {"supervoxels": {"mode": "section", "threshold": 0.5, "filter_width": 1}}
    file = given_run(tmp_path, membranes(), **by_section)
    for value, expected in (("true", False), ("false", True)):
        override = f"agglomeration.across_sections={value}"
        finished = run(file, override, "segmentation.threshold=0.05")
        opened.forget()
        labels = open_volume(finished.layout.volume_url("labels")).read(finished.layout.roi)
        sections = [set(np.unique(section)) - {0} for section in labels]
        apart = all(not a & b for a, b in itertools.pairwise(sections))
        assert all(sections)
        assert apart == expected


def test_a_network_of_membranes_goes_to_neurons(tmp_path: Path) -> None:
    """A model without affinities stores its membranes, and neurons are made of them, as of the same membranes given."""
    file = heads_run(tmp_path, None, supervoxels={"threshold": 0.2, "filter_width": 1})
    write_model(tmp_path / "model", [{"what": "contours", "channels": 1}, {"what": "membranes", "channels": 1}], [])
    finished = run(file)
    assert sorted(path.name for path in (tmp_path / "run").glob("*.zarr")) == [
        *("fragments.zarr", "labels.zarr", "membranes.zarr", "supervoxels.zarr"),
    ]
    assert all(proof.proven for proof in verify_run(finished, sample=None, seed=0))
    opened.forget()
    labels = open_volume(finished.layout.volume_url("labels")).read(finished.layout.roi)
    copied = open_volume(str(tmp_path / "run" / "membranes.zarr")).read(finished.layout.roi)
    again = given_run(tmp_path / "given", copied, supervoxels={"threshold": 0.2, "filter_width": 1})
    expected = run(again)
    opened.forget()
    np.testing.assert_array_equal(open_volume(expected.layout.volume_url("labels")).read(finished.layout.roi), labels)


def test_a_model_with_both_stores_what_is_asked_for(tmp_path: Path) -> None:
    file = heads_run(tmp_path, None)
    assert Run.open(file).inputs.heads == ("affinities",)
    assert Run.open(file, ["supervoxels.source=membranes"]).inputs.heads == ("membranes",)
    only = Run.open(file, ["inference.heads=[membranes]"])
    assert (only.inputs.heads, only.setup.source) == (("membranes",), "membranes")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["inference.heads=[classes]"], r"neurons are made of affinities or membranes, and this run has neither"),
        (
            ["inference.heads=[affinities]", "supervoxels.source=membranes"],
            r"source is membranes; .*has affinities",
        ),
        (["agglomeration.across_sections=false"], r"across_sections is false, and supervoxels go through several"),
        (
            [*("agglomeration.across_sections=false", "supervoxels.mode=section", "agglomeration.stop_score=0")],
            r"stop_score is 0, down to which regions are merged: set it to 0\.01",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Run.open(heads_run(tmp_path, None), overrides)


def test_a_model_without_either_is_refused_with_its_heads(tmp_path: Path) -> None:
    file = heads_run(tmp_path, None)
    write_model(tmp_path / "model", [{"what": "contours", "channels": 1}, {"what": "foreground", "channels": 1}], [])
    message = r"predicts contours, foreground; a run makes neurons of affinities of the nearest neighbours or of membr"
    with pytest.raises(ConfigError, match=message):
        Run.open(file)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, *SHAPE), np.uint8), r"has 3 channels; membranes are one channel: choose it by adding #"),
        (np.ones(SHAPE, np.uint8), r"uint8 membranes of which none is larger than 1"),
        (
            np.full(SHAPE, 2.0, np.float32),
            r"membranes in .* range from 2\.0 to 2\.0; floating-point membranes",
        ),
        (np.zeros(SHAPE, np.int16), r"holds int16; membranes must be uint8 \(255 = surely membrane\) or float"),
    ],
)
def test_volumes_that_are_no_membranes_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        Run.open(given_run(tmp_path, array))


def test_given_heads_must_have_the_same_voxels(tmp_path: Path) -> None:
    one = write_volume(tmp_path / "one.zarr", membranes())
    two = write_volume(tmp_path / "two.zarr", membranes()[1:])
    with pytest.raises(VolumeError, match=r"membranes in .*one\.zarr covers .*all must have the same voxels"):
        Run.open(given_run(tmp_path, membranes(), input={"heads": {"membranes": one, "foreground": two}}))


def test_a_stage_reads_the_channels_that_it_chose(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 6)).astype(np.uint8)
    head = HeadSource("classes", write_volume(tmp_path / "classes.zarr", array), "print")
    box = BoundingBox((1, 1, 1), (3, 4, 5))
    np.testing.assert_array_equal(head.select(2, 0).read(box), array[[2, 0]][:, *box.slices()])
    np.testing.assert_array_equal(head.select(1).read(box), array[1][box.slices()])
    np.testing.assert_array_equal(head.read(box), array[:, *box.slices()])
    assert head.identity != head.select(1).identity


def test_a_head_that_the_run_has_not_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    setup = Run.open(given_run(tmp_path, membranes())).setup
    with pytest.raises(ConfigError, match=r"this run has no head 'foreground'; it has membranes: add it to inference"):
        setup.head("foreground", None)
