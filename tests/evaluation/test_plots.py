"""Pictures are drawn, whole, and colours mean what they should."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.errors import StorageError, VolumeError
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.plots import _matched, comparison_picture, label_colours, plot_sweep
from pipeline.evaluation.sweep import Merges, sweep
from pipeline.synthetic.tissue import make_tissue


def points():
    truth, leaves = np.repeat([1, 2], 40), np.repeat([1, 2, 3, 4], 20)
    tree = Merges(np.array([1, 3, 1]), np.array([2, 4, 3]), np.array([0.8, 0.7, 0.2]))
    return sweep(Contingency.from_labels(truth, leaves), tree, np.linspace(0, 1, 11))


def test_a_sweep_becomes_a_picture(tmp_path: Path) -> None:
    plot_sweep(points(), tmp_path / "report" / "sweep.png")
    assert imread(tmp_path / "report" / "sweep.png").shape[0] > 300
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["sweep.png"]


@pytest.mark.parametrize("resolution_nm", [(8, 8, 8), (40, 8, 8)])
def test_volumes_become_a_picture_with_or_without_truth_and_affinities(tmp_path: Path, resolution_nm) -> None:
    tissue = make_tissue((10, 40, 48), seed=0, resolution_nm=resolution_nm)
    affinities = np.repeat(tissue.image[None], 12, axis=0)
    widths = []
    for affs, truth in ((affinities, tissue.labels), (None, tissue.labels), (None, None)):
        path = tmp_path / f"picture-{len(widths)}.png"
        comparison_picture(tissue.image, affs, tissue.labels, truth, path, resolution_nm=resolution_nm, title="t")
        widths.append(imread(path).shape[1])
    assert widths[0] > widths[1] > widths[2]


def test_colours_depend_on_the_id_alone() -> None:
    one, other = label_colours(np.array([[5, 9]])), label_colours(np.array([9, 1, 5, 2**63], np.uint64))
    assert np.array_equal(one[0], other[[2, 0]])
    assert len(np.unique(label_colours(np.arange(500)), axis=0)) == 500


def test_segments_take_the_colour_of_the_object_that_they_fill() -> None:
    truth = np.array([[[1, 1, 1, 2, 2, 0]]])
    segmentation = np.array([[[30, 30, 31, 32, 32, 0]]])
    matched = _matched(segmentation, truth)[0, 0]
    assert matched[[0, 3, 5]].tolist() == [1, 2, 0]
    assert matched[2] not in (1, 2)


def test_volumes_of_different_shapes_are_refused(tmp_path: Path) -> None:
    raw = np.zeros((4, 5, 6), np.uint8)
    with pytest.raises(VolumeError, match="read one box"):
        comparison_picture(raw, None, np.zeros((4, 5, 7), int), None, tmp_path / "p.png")
    with pytest.raises(VolumeError, match="3 affinities"):
        comparison_picture(raw, raw[None], raw, None, tmp_path / "p.png")


def test_a_failed_picture_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "sweep.png"
    plot_sweep(points(), path)
    before = path.read_bytes()
    with pytest.raises(VolumeError):
        plot_sweep([], path)
    assert path.read_bytes() == before
    with pytest.raises(StorageError, match="choose another"):
        plot_sweep(points(), path / "below.png")
