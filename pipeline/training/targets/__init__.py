"""The targets of networks: pure functions from labels to targets, with masks where not every voxel counts.

    edges        affinities of any range, and erosion of labels
    masks        foreground, membranes, contours
    distances    signed distance, distance inside objects
    descriptors  local shape descriptors
    weights      the weight of each voxel in the loss
    calibre      the weight of each voxel by the calibre of its object

``pipeline.training.target_specs`` chooses among them in a configuration file.
"""

from pipeline.training.targets.calibre import calibre_weights
from pipeline.training.targets.descriptors import descriptor_channels, shape_descriptors
from pipeline.training.targets.distances import instance_distance, signed_distance
from pipeline.training.targets.edges import (
    SUPERHUMAN_OFFSETS,
    affinities,
    edge_padded_affinities,
    erode,
    overlap_slices,
    widen_borders,
)
from pipeline.training.targets.masks import contours, erode_in_plane, foreground, membranes
from pipeline.training.targets.weights import ratio_weights, unet_weights

__all__ = [
    "SUPERHUMAN_OFFSETS",
    "affinities",
    "calibre_weights",
    "contours",
    "descriptor_channels",
    "edge_padded_affinities",
    "erode",
    "erode_in_plane",
    "foreground",
    "instance_distance",
    "membranes",
    "overlap_slices",
    "ratio_weights",
    "shape_descriptors",
    "signed_distance",
    "unet_weights",
    "widen_borders",
]
