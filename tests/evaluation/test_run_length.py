"""The expected run length has the values that are worked out by hand here."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CorruptError, VolumeError
from pipeline.evaluation.run_length import (
    NodeSegments,
    Skeletons,
    expected_run_length,
    merge_nodes,
    node_segments,
)


def lines(*counts: int) -> Skeletons:
    """Straight skeletons along x with edges of 10 nm, 100 nm apart in y."""
    nodes, edges, owner = [], [], []
    for line, count in enumerate(counts):
        edges += [(len(nodes) + i, len(nodes) + i + 1) for i in range(count - 1)]
        nodes += [(0.0, 100.0 * line, 10.0 * i) for i in range(count)]
        owner += [line + 1] * count
    return Skeletons(np.array(nodes), np.array(edges, np.int64).reshape(-1, 2), np.array(owner))


def test_a_perfect_segmentation_reaches_the_best_value() -> None:
    skeletons = lines(11, 6)
    result = expected_run_length(skeletons, np.repeat([5, 9], [11, 6]).astype(np.uint64))
    assert result.erl_nm == result.best_nm == pytest.approx((100**2 + 50**2) / 150)
    assert result.normalised == 1
    assert (result.correct_nm, result.split_edges, result.merged_segments) == (150, 0, 0)


def test_a_split_leaves_two_runs_and_loses_its_edge() -> None:
    result = expected_run_length(lines(11), np.repeat([1, 2], [4, 7]).astype(np.uint64))
    assert result.erl_nm == pytest.approx((30**2 + 60**2) / 100)
    assert (result.split_edges, result.split_nm, result.correct_nm) == (1, 10, 90)
    assert result.normalised == pytest.approx(0.45)


def test_a_merged_segment_is_worth_nothing_in_all_its_skeletons() -> None:
    """Skeleton 1 has 4 nodes in segment 7; one node of skeleton 2 in it makes it a merger."""
    segments = np.array([7, 7, 7, 7, 8, 8, 7, 9, 9], np.uint64)
    result = expected_run_length(lines(6, 3), segments)
    assert result.merged_segments == 1
    assert (result.merged_nm, result.split_nm, result.correct_nm) == (30, 20, 20)
    assert result.erl_nm == pytest.approx((10**2 + 10**2) / 70)


def test_a_merge_threshold_forgives_single_nodes() -> None:
    segments = np.array([7, 7, 7, 7, 8, 8, 7, 9, 9], np.uint64)
    result = expected_run_length(lines(6, 3), segments, merge_threshold=2)
    assert (result.merged_segments, result.merged_nm) == (0, 0)
    assert result.erl_nm == pytest.approx((30**2 + 10**2 + 10**2) / 70)


def test_nodes_in_no_segment_are_omitted_and_never_merge() -> None:
    result = expected_run_length(lines(3, 3), np.array([0, 4, 4, 0, 0, 5], np.uint64))
    assert (result.omitted_nm, result.correct_nm, result.merged_segments) == (30, 10, 0)
    assert result.erl_nm == pytest.approx(10**2 / 40)


def test_a_run_goes_on_behind_a_gap_in_the_same_segment() -> None:
    result = expected_run_length(lines(5), np.array([3, 3, 0, 3, 3], np.uint64))
    assert result.erl_nm == pytest.approx(20**2 / 40)


def test_all_unassigned_is_zero() -> None:
    result = expected_run_length(lines(5), np.zeros(5, np.uint64))
    assert (result.erl_nm, result.normalised) == (0, 0)


@given(st.integers(0, 2**32), st.lists(st.integers(1, 11), max_size=2), st.lists(st.integers(1, 9), max_size=2))
def test_nodes_looked_up_chunk_by_chunk_are_those_of_the_whole(seed: int, cut_z, cut_x) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (12, 8, 10)).astype(np.uint64)
    resolution_nm, start = (30.0, 8.0, 8.0), (4, 0, -2)
    nodes = (rng.uniform(-2, 14, (40, 3)) + np.array(start)) * resolution_nm
    skeletons = Skeletons(nodes, np.zeros((0, 2), np.int64), np.ones(40, np.int64))
    whole = merge_nodes([node_segments(skeletons, labels, start, resolution_nm)], 40)
    parts = []
    for z0, z1 in zip([0, *sorted(cut_z)], [*sorted(cut_z), 12], strict=True):
        for x0, x1 in zip([0, *sorted(cut_x)], [*sorted(cut_x), 10], strict=True):
            corner = (start[0] + z0, start[1], start[2] + x0)
            parts.append(node_segments(skeletons, labels[z0:z1, :, x0:x1], corner, resolution_nm))
    assert np.array_equal(merge_nodes(parts[::-1], 40), whole)
    for node, segment in zip(nodes, whole, strict=True):
        voxel = np.floor(node / resolution_nm).astype(int) - start
        inside = ((voxel >= 0) & (voxel < labels.shape)).all()
        assert segment == (labels[tuple(voxel)] if inside else 0)


def test_parts_of_two_segmentations_are_refused() -> None:
    one, other = (NodeSegments(np.array([1]), np.array([value], np.uint64)) for value in (3, 4))
    with pytest.raises(CorruptError, match="disagree"):
        merge_nodes([one, other], 2)
    assert merge_nodes([one, one], 2).tolist() == [0, 3]


def test_skeletons_survive_storage_and_bad_ones_are_refused(tmp_path: Path) -> None:
    made = lines(4, 2)
    path = tmp_path / "skeletons.npz"
    np.savez(path, nodes_nm=made.nodes_nm, edges=made.edges, skeleton=made.skeleton)
    loaded = Skeletons.load(path)
    assert np.array_equal(loaded.edges, made.edges)
    np.savez(path, nodes_nm=made.nodes_nm)
    with pytest.raises(VolumeError, match="npz of nodes_nm"):
        Skeletons.load(path)
    with pytest.raises(VolumeError, match="below 6"):
        Skeletons(made.nodes_nm, np.array([[0, 6]]), made.skeleton)
    with pytest.raises(VolumeError, match="joins two skeletons"):
        Skeletons(made.nodes_nm, np.array([[3, 4]]), made.skeleton)
    with pytest.raises(VolumeError, match="finite nodes"):
        Skeletons(made.nodes_nm * np.nan, made.edges, made.skeleton)
    with pytest.raises(VolumeError, match="one for each"):
        expected_run_length(made, np.zeros(3, np.uint64))
    with pytest.raises(VolumeError, match="needs edges"):
        expected_run_length(lines(1), np.zeros(1, np.uint64))
