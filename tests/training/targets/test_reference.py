"""Targets and weights equal those of PyTorch Connectomics at 121bb8c (December 2021)."""

import numpy as np
import pytest

from pipeline.training.targets import (
    edge_padded_affinities,
    erode_in_plane,
    foreground,
    ratio_weights,
)
from tests.training.targets.usual import contours, shared_level, signed_distance

MADE = {
    "mask_0": foreground,
    "aff_v0": lambda labels: edge_padded_affinities(labels, (1, 1, 1)),
    "aff_2_3_3_v1": lambda labels: edge_padded_affinities(labels, (2, 3, 3)),
    "contour_4_1_1": contours,
    "contour_4_0_1": lambda labels: contours(labels, dilation=0),
    "contour_4_1_0": lambda labels: contours(labels, background=False),
    "sdt_6_2d_8_50": signed_distance,
    "sdt_6_3d_8_50": lambda labels: signed_distance(labels, in_plane=False),
    "edt5_2d": shared_level,
    "erode1": erode_in_plane,
}


@pytest.fixture(scope="module")
def reference(shared_fixtures):
    return dict(np.load(shared_fixtures / "pytc2021_targets.npz"))


@pytest.mark.parametrize("name", MADE)
def test_a_target_is_the_reference_to_the_last_bit(reference, name):
    made = MADE[name](reference["seg"])
    assert made.dtype == reference[name].dtype
    assert np.array_equal(made, reference[name])


@pytest.mark.parametrize("name", ["weight_mask", "weight_contour", "weight_contour_dil"])
def test_a_weight_map_is_the_reference_to_the_last_bit(reference, name):
    target = reference["mask_0" if name == "weight_mask" else "contour_4_1_1"]
    made = ratio_weights(target, dilate=name.endswith("dil"))
    assert made.dtype == np.float32
    assert np.array_equal(made, reference[name])


@pytest.mark.parametrize("name", [n for n in MADE if n not in ("aff_v0", "aff_2_3_3_v1", "sdt_6_3d_8_50")])
def test_a_section_alone_is_treated_like_a_section_of_a_volume(reference, name):
    """A single section has the same target as that section has within its volume."""
    whole = MADE[name](reference["seg"])
    section = MADE[name](reference["seg"][3])
    assert np.array_equal(section, whole[..., 3, :, :])
