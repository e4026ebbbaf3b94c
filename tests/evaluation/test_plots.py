"""Pictures are written whole or not at all, and colours identify segments."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.errors import StorageError, VolumeError
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.plots import Planes, _matched, comparison_picture, label_colours, sweep_plot
from pipeline.evaluation.sweep import Merges, sweep
from pipeline.synthetic.tissue import make_tissue


def points():
    truth, leaves = np.repeat([1, 2], 40), np.repeat([1, 2, 3, 4], 20)
    tree = Merges(np.array([1, 3, 1]), np.array([2, 4, 3]), np.array([0.8, 0.7, 0.2]))
    return sweep(Contingency.from_labels(truth, leaves), tree, np.linspace(0, 1, 11))


def test_a_sweep_becomes_a_picture(tmp_path: Path) -> None:
    sweep_plot(points(), tmp_path / "report" / "sweep.png", chosen=0.3)
    assert imread(tmp_path / "report" / "sweep.png").shape[0] > 300
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["sweep.png"]


@pytest.mark.parametrize("resolution_nm", [(8, 8, 8), (40, 8, 8)])
def test_volumes_become_a_picture_with_or_without_truth_and_affinities(tmp_path: Path, resolution_nm) -> None:
    tissue = make_tissue((10, 40, 48), seed=0, resolution_nm=resolution_nm)
    affinities = np.repeat(tissue.image[None], 12, axis=0)
    widths = []
    parts = {"truth": tissue.labels, "image": tissue.image, "affinities": affinities}
    while True:
        path = tmp_path / f"picture-{len(parts)}.png"
        comparison_picture(path, segmentation=tissue.labels, resolution_nm=resolution_nm, title="t", **parts)
        widths.append(imread(path).shape[1])
        if not parts:
            break
        parts.popitem()
    assert widths == sorted(set(widths), reverse=True), "each part is one column"


def test_two_planes_make_the_same_picture_as_the_volume(tmp_path: Path) -> None:
    """Two planes give the same picture as the volume, so a run need not read the whole of a large volume."""
    tissue = make_tissue((9, 30, 33), seed=0)
    image, labels = tissue.image, tissue.labels
    comparison_picture(tmp_path / "volume.png", segmentation=labels, image=image, truth=labels)
    planes = {"segmentation": labels, "image": image, "truth": labels}
    comparison_picture(tmp_path / "planes.png", **{k: Planes(v[4], v[:, 15]) for k, v in planes.items()})
    assert np.array_equal(imread(tmp_path / "volume.png"), imread(tmp_path / "planes.png"))


def test_colours_depend_on_the_id_alone() -> None:
    one, other = label_colours(np.array([[5, 9]])), label_colours(np.array([9, 1, 5, 2**63], np.uint64))
    assert np.array_equal(one[0], other[[2, 0]])
    assert len(np.unique(label_colours(np.arange(500)), axis=0)) == 500


def test_segments_take_the_colour_of_the_object_that_they_fill() -> None:
    truth = [np.array([[1, 1, 1]]), np.array([[2, 2, 0]])]
    segmentation = [np.array([[30, 30, 31]]), np.array([[32, 32, 0]])]
    first, second = _matched(segmentation, truth)
    assert first[0, :2].tolist() == [1, 1]
    assert second.tolist() == [[2, 2, 0]]
    assert first[0, 2] not in (1, 2)


def test_volumes_of_different_shapes_are_refused(tmp_path: Path) -> None:
    raw = np.zeros((4, 5, 6), np.uint8)
    with pytest.raises(VolumeError, match="read one box"):
        comparison_picture(tmp_path / "p.png", segmentation=np.zeros((4, 5, 7), int), image=raw)
    with pytest.raises(VolumeError, match="3 affinities"):
        comparison_picture(tmp_path / "p.png", segmentation=raw, affinities=raw[None])


def test_a_failed_picture_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "sweep.png"
    sweep_plot(points(), path)
    before = path.read_bytes()
    with pytest.raises(VolumeError):
        sweep_plot([], path)
    assert path.read_bytes() == before
    with pytest.raises(StorageError, match="choose another"):
        sweep_plot(points(), path / "below.png")
