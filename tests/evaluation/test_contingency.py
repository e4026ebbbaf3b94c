"""The table of true and predicted ids is the same when it is counted chunk by chunk and as a whole."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.errors import CorruptError, StorageError, VolumeError
from pipeline.evaluation.contingency import Contingency

SHAPES = arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)


@st.composite
def label_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SHAPES)
    truth = draw(arrays.arrays(np.uint32, shape, elements=st.integers(0, 4)))
    return truth, draw(arrays.arrays(np.uint64, shape, elements=st.sampled_from([0, 1, 7, 2**63 + 5, 2**64 - 1])))


def brute_force(truth: np.ndarray, predicted: np.ndarray) -> dict[tuple[int, int], int]:
    counts: dict[tuple[int, int], int] = {}
    for pair in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if pair[0]:
            counts[pair] = counts.get(pair, 0) + 1
    return counts


def as_dict(table: Contingency) -> dict[tuple[int, int], int]:
    return {(a, b): n for a, b, n in zip(*(c.tolist() for c in table.to_arrays().values()), strict=True)}


@given(label_pairs())
def test_the_table_is_the_count_of_every_pair(pair: tuple[np.ndarray, np.ndarray]) -> None:
    table = Contingency.from_labels(*pair)
    assert as_dict(table) == brute_force(*pair)
    assert table.total == np.count_nonzero(pair[0])
    assert list(as_dict(table)) == sorted(as_dict(table))


@given(label_pairs(), st.data())
@settings(max_examples=60)
def test_the_sum_over_any_chunks_in_any_order_is_the_whole(pair, data: st.DataObject) -> None:
    truth, predicted = pair
    cuts = [sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=3))}) for size in truth.shape]
    boxes = [
        tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
        for begin, end in zip(
            np.stack(np.meshgrid(*(c[:-1] for c in cuts)), -1).reshape(-1, 3),
            np.stack(np.meshgrid(*(c[1:] for c in cuts)), -1).reshape(-1, 3),
            strict=True,
        )
    ]
    parts = [Contingency.from_labels(truth[box], predicted[box]) for box in data.draw(st.permutations(boxes))]
    total = Contingency.empty()
    for part in parts:
        total = part + total
    assert total == Contingency.sum(parts) == Contingency.from_labels(truth, predicted)


@given(label_pairs())
def test_relabelling_the_table_is_relabelling_the_voxels(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = pair
    old, new = np.array([1, 2**63 + 5], np.uint64), np.array([7, 99], np.uint64)
    moved = predicted.copy()
    for a, b in zip(old, new, strict=True):
        moved[predicted == a] = b
    assert Contingency.from_labels(truth, predicted).relabelled(old, new) == Contingency.from_labels(truth, moved)


def test_unassigned_voxels_are_one_segment_unless_left_out() -> None:
    table = Contingency.from_labels(np.array([1, 1, 2, 0]), np.array([0, 5, 0, 0]))
    assert as_dict(table) == {(1, 0): 1, (1, 5): 1, (2, 0): 1}
    assert as_dict(table.without_unassigned()) == {(1, 5): 1}


def test_a_table_survives_storage(tmp_path: Path) -> None:
    table = Contingency.from_labels(np.array([[1, 2, 2]], np.uint8), np.array([[4, 2**64 - 1, 0]], np.uint64))
    table.save(tmp_path / "deep" / "table.npz")
    assert Contingency.load(tmp_path / "deep" / "table.npz") == table
    assert Contingency.from_arrays(table.to_arrays()) == table
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["table.npz"]


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    Contingency.from_labels(np.arange(1, 50), np.arange(1, 50)).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptError, match="evaluate again"):
        Contingency.load(path)
    with pytest.raises(CorruptError, match="voxels"):
        Contingency.from_arrays({"truth": np.ones(1), "predicted": np.ones(1)})
    with pytest.raises(CorruptError, match="equally long"):
        Contingency.from_arrays({"truth": np.ones(1), "predicted": np.ones(2), "voxels": np.ones(2)})


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="choose another"):
        Contingency.empty().save(tmp_path / "file" / "table.npz")


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "same voxels"),
        (np.zeros(2), np.zeros(2, int), "integers"),
        (np.zeros(2, int), np.array([1, -1]), "smallest id -1"),
    ],
)
def test_volumes_that_are_no_labels_are_refused(truth, predicted, message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        Contingency.from_labels(truth, predicted)


def test_an_empty_box_gives_the_empty_table() -> None:
    assert Contingency.from_labels(np.zeros((0, 3, 3), int), np.zeros((0, 3, 3), int)) == Contingency.empty()
    assert Contingency.empty() + Contingency.empty() == Contingency.empty()


@pytest.mark.parametrize(
    ("dtype", "ignored"),
    [
        *(("int64", -mark) for mark in (1, 2, 3)),
        ("int16", -1),
        *(("uint64", 2**64 - mark) for mark in (1, 2, 3)),
        ("uint32", 2**32 - 1),
        ("uint8", 0),
    ],
)
def test_truth_that_is_not_to_be_scored_is_left_out(dtype: str, ignored: int) -> None:
    """-1 to -3, and what they are without a sign, count like 0."""
    truth, predicted = np.array([1, 1, 2, 0, 3], dtype), np.array([1, 2, 2, 2, 5])
    marked = truth.copy()
    marked[[0, 4]] = np.array(ignored, object).astype(dtype)
    truth[[0, 4]] = 0
    assert Contingency.from_labels(marked, predicted) == Contingency.from_labels(truth, predicted)


def test_other_negative_truth_and_ids_of_small_types_are_not_ignored() -> None:
    with pytest.raises(VolumeError, match="smallest id -4"):
        Contingency.from_labels(np.array([-4]), np.array([1]))
    assert Contingency.from_labels(np.array([2**64 - 4], "uint64"), np.array([1])).total == 1
    assert Contingency.from_labels(np.array([2**32 - 2], "uint32"), np.array([1])).total == 1
    assert Contingency.from_labels(np.array([255], "uint8"), np.array([1])).total == 1
