"""Pictures and numbers of a comparison of masks or objects, in a folder: scores.json, sweep.png and errors.png."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.evaluation.compare_masks import MaskScores
from pipeline.evaluation.compare_objects import ObjectScores
from pipeline.evaluation.contingency import scored_voxels
from pipeline.evaluation.error_plots import CODES, NOT_SCORED, error_picture, iou_plot, threshold_plot
from pipeline.evaluation.files import make_folder, whole_file
from pipeline.evaluation.masks import as_values
from pipeline.evaluation.objects import Overlaps
from pipeline.evaluation.pairs import Pair
from pipeline.geometry import BoundingBox, Vec

MOST_SECTIONS = 3
SIDE = 1024
"""Pixels along each side of the part of a section that is drawn, around the middle of the box."""


def write_report(folder: Path | str, pair: Pair, scores: MaskScores | ObjectScores) -> dict[str, str]:
    """Write the numbers and the pictures of a comparison that scored its sections.

    Args:
        folder: made if it is missing; files of these names are replaced.
        pair: what was compared.
        scores: with ``sections``.

    Returns the path of each file by what it shows. A mask has no threshold sweep, and there is none without a true
    voxel.

    Raises ``StorageError`` if a file cannot be written.
    """
    place = make_folder(folder, "--report")
    paths = {name: str(place / file) for name, file in (("scores", "scores.json"), ("errors", "errors.png"))}
    with whole_file(paths["scores"]) as temporary:
        temporary.write_text(json.dumps(scores.to_dict(), indent=2) + "\n")
    if isinstance(scores, ObjectScores):
        iou_plot(scores, place / "sweep.png", title=pair.title)
    elif scores.best is not None:
        threshold_plot(scores, place / "sweep.png", title=pair.title)
    if isinstance(scores, ObjectScores) or scores.best is not None:
        paths["sweep"] = str(place / "sweep.png")
    drawn = {f"z = {z}": _section(pair, scores, z) for z in worst_sections(scores)}
    _, y, x = pair.resolution_nm
    error_picture(drawn, paths["errors"], aspect=y / x, title=pair.title)
    return paths


def worst_sections(scores: MaskScores | ObjectScores) -> list[int]:
    """The sections with the most errors, at most three, in order of z; of equally bad ones the first."""
    assert scores.sections is not None, "sections are scored before their errors are drawn"
    if isinstance(scores, MaskScores):
        at = {z: counts.at(scores.value) for z, counts in scores.sections.sections.items()}
        errors = {z: each.fp + each.fn for z, each in at.items()}
    else:
        halves = {z: levels.at(0.5) for z, levels in scores.sections.sections.items()}
        errors = {z: each.objects + each.predicted - 2 * each.found for z, each in halves.items()}
    return sorted(sorted(errors, key=lambda z: (-errors[z], z))[:MOST_SECTIONS])


def _section(pair: Pair, scores: MaskScores | ObjectScores, z: int) -> Mapping[str, np.ndarray]:
    """The codes of the part of a section that is drawn, by column."""
    middle = pair.box.middle
    around = BoundingBox(Vec(z, middle.y, middle.x), Vec(z + 1, middle.y, middle.x)).grow((0, SIDE // 2, SIDE // 2))
    true, predicted = (plane[0] for plane in pair.read(around.intersect(pair.box)))
    if isinstance(scores, MaskScores):
        return {"": mask_codes(true, predicted, scores.value)}
    return object_codes(true, predicted, scores.overlaps)


def mask_codes(true: np.ndarray, predicted: np.ndarray, value: int) -> np.ndarray:
    """What each voxel is, as in ``CODES``: found, missed, invented, or 0 in the background of both."""
    real, found = true != 0, as_values(predicted) >= value
    kinds = {"found": real & found, "missed": real & ~found, "invented": found & ~real}
    codes = np.select(list(kinds.values()), [CODES[name] for name in kinds], 0)
    return np.where(scored_voxels(true), codes, NOT_SCORED)


def object_codes(true: np.ndarray, predicted: np.ndarray, overlaps: Overlaps) -> dict[str, np.ndarray]:
    """The true objects, found or missed, and the predicted ones, found or invented, at IoU 0.5 in the whole volume."""
    partner, _ = overlaps.partners(0.5)
    found = np.isin(true.astype(np.uint64), overlaps.true_ids[partner[partner >= 0]])
    finders = np.isin(predicted.astype(np.uint64), overlaps.predicted_ids[partner >= 0])
    codes = {
        "truth": np.where(found, CODES["found"], CODES["missed"]) * (true != 0),
        "predicted": np.where(finders, CODES["found"], CODES["invented"]) * (predicted != 0),
    }
    scored = scored_voxels(true)
    return {
        name: np.where(scored, _with_borders(each, ids), NOT_SCORED)
        for (name, each), ids in zip(codes.items(), (true, predicted), strict=True)
    }


def _with_borders(codes: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The codes with background between objects that touch, so that they can be told apart."""
    apart = np.zeros(ids.shape, bool)
    apart[1:] |= (ids[1:] != ids[:-1]) & (ids[1:] != 0) & (ids[:-1] != 0)
    apart[:, 1:] |= (ids[:, 1:] != ids[:, :-1]) & (ids[:, 1:] != 0) & (ids[:, :-1] != 0)
    return np.where(apart, 0, codes)
