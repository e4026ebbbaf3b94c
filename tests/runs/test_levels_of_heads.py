"""Thresholds and conditions that no voxel, or every voxel, fulfils are refused before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from tests.runs import write_run, write_volume

VALUES = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)


def opened_run(folder: Path, *heads: str, **table: Any) -> Run:
    """A run of heads that all hold every value."""
    given = {name: write_volume(folder / f"{name}.zarr", VALUES) for name in heads}
    return Run.open(str(write_run(folder, input={"heads": given}, segmentation=table)))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"threshold": 1.0}, r"segmentation\.threshold is 1, and the values of foreground are from 0 to 1: .*below 1"),
        ({"threshold": -0.2}, r"segmentation\.threshold is -0\.2, and the values of foreground are from 0 to 1"),
        ({"lowest_threshold": -0.2}, r"segmentation\.lowest_threshold is -0\.2"),
        ({"kind": "objects", "seed_threshold": 1.0}, r"segmentation\.seed_threshold is 1, and"),
        (
            {"kind": "objects", "within": {"contours": {"above": -0.5}}},
            r"within\.contours\.above is -0\.5, and .*conto",
        ),
        ({"kind": "objects", "within": {"contours": {"below": 0.0}}}, r"within\.contours\.below is 0, .*above 0"),
        (
            {"kind": "objects", "head": "foreground", "within": {"foreground": {"below": 0.5}}},
            r"within\.foreground\.below is 0\.5, and foreground must be above 0\.5 there",
        ),
        (
            {
                "kind": "objects",
                "head": "foreground",
                "seed_threshold": 0.7,
                "seeds_within": {"foreground": {"below": 0.6}},
            },
            r"seeds_within\.foreground\.below is 0\.6, and foreground must be above 0\.7 there",
        ),
    ],
)
def test_a_level_that_the_head_never_passes_is_refused(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    """The message names the key, the value and what the head holds."""
    with pytest.raises(ConfigError, match=message):
        _ = opened_run(tmp_path, "foreground", "contours", **{"kind": "mask", **table}).stages


@pytest.mark.parametrize("table", [{"threshold": -0.4}, {"threshold": -1.0}])
def test_signed_distances_have_levels_below_zero(tmp_path: Path, table: dict[str, Any]) -> None:
    assert opened_run(tmp_path, "signed_distance", kind="mask", **table).threshold == table["threshold"]


def test_a_run_without_a_head_for_a_mask_says_what_it_has(tmp_path: Path) -> None:
    """Affinities alone are no head of a mask, and the message says so instead of asking which of none is meant."""
    affinities = write_volume(tmp_path / "affinities.zarr", np.stack([VALUES] * 3))
    file = write_run(tmp_path, input={"affinities": affinities}, segmentation={"kind": "mask"})
    with pytest.raises(ConfigError, match=r"of affinities none is left .* take a model that predicts foreground"):
        _ = Run.open(str(file)).stages
