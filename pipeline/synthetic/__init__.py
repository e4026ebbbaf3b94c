"""Generators of images with exact ground truth, z, y, x throughout; pure functions of their arguments."""

from __future__ import annotations

from typing import Any

KINDS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "tissue": ("pipeline.synthetic.tissue_samples", "TissueConfig", "make_tissue_sample", {"target": "labels"}),
    "mitochondria": (
        "pipeline.synthetic.mitochondria",
        "MitochondriaConfig",
        "make_mitochondria_sample",
        {"target": "labels"},
    ),
    "organelles": (
        "pipeline.synthetic.organelle_classes",
        "OrganellesConfig",
        "make_organelles_sample",
        {"target": "labels"},
    ),
    "challenge": (
        "pipeline.synthetic.connectomics_challenge",
        "ChallengeConfig",
        "make_challenge",
        {"target": "mask", "black": -1.0, "white": 2.0},
    ),
    "pathfinder": ("pipeline.synthetic.pathfinder", "PathfinderConfig", "make_pathfinder", {"target": "mask"}),
    "tilt": ("pipeline.synthetic.tilt", "TiltConfig", "make_tilt", {"target": "orientation"}),
}
"""Name -> module, settings, function, and how samples are stored; loaded when needed."""
