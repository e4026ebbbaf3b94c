"""The inputs of a run, opened and checked against each other before anything is computed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.config.run_file import Evaluation, RunConfig, Supervoxels
from pipeline.errors import ConfigError, VolumeError, counted
from pipeline.evaluation.compare_classes import require_classes_in
from pipeline.evaluation.contingency import MARKS
from pipeline.evaluation.run_length import Skeletons
from pipeline.geometry import BoundingBox, Triple, Vec, as_vec
from pipeline.models.heads import AFFINITIES, MEMBRANES, VOLUME, source_of
from pipeline.runs.origin import input_fingerprint, origin_of, refuse_own_directory
from pipeline.segmentation.supervoxels import SupervoxelRules, default_rules
from pipeline.stages import opened
from pipeline.stages.heads import SURE, HeadSource, to_uint8
from pipeline.stages.setup import Inputs, Network, Organelle, Truth
from pipeline.volumes.base import Volume, VolumeSpec
from pipeline.volumes.coarser import mask_on, same_size
from pipeline.volumes.image_rules import check_image
from pipeline.volumes.location import parse_location
from pipeline.volumes.resemblance import refuse_image_as_labels
from pipeline.volumes.sample import sample_blocks
from pipeline.volumes.scaled import says_scale

if TYPE_CHECKING:
    from pipeline.models.spec import ModelCard

SECTION_RATIO = 3
"""Voxels at least this many times as deep as wide are segmented section by section."""
MEANS = {AFFINITIES: "surely one object", MEMBRANES: "surely membrane"}
"""What 255 stands for."""
RESOLUTION_FACTOR = 1.5
"""Voxels may be larger or smaller than those that a model was trained on by up to this factor, along each axis."""


def open_inputs(config: RunConfig) -> Inputs:
    """Open and check every input of a run; ``ConfigError``, ``VolumeError`` or ``ModelError`` if one does not fit."""
    _refuse_part_without_truth(config.evaluation)
    given = config.input
    url = given.source
    volume = opened.source(url)
    spec = volume.spec
    network = open_network(config, spec) if given.runs_network else None
    if network is not None:
        check_image(volume, network.card.image_channels, f"model {network.card.name}")
    roi = region_of_interest(given.start, given.stop, spec.bounds)
    heads = tuple(open_head(name, place, spec, roi, config.run_directory) for name, place in given.given.items())
    rules = supervoxel_rules(config.supervoxels, spec.resolution_nm)
    _check_sections(config, rules)
    if given.given:
        _check_far(config, heads)
    if given.labels is not None:
        _open_labels(given.labels, spec, "the segmentation")
    inputs = Inputs(
        url=url,
        spec=spec,
        fingerprint=heads[0].fingerprint if heads else input_fingerprint(volume, roi, config.run_directory),
        roi=roi,
        affinity_offsets=given.affinity_offsets if network is None else network.affinity_offsets,
        mask_url=given.mask,
        mask_fingerprint="" if given.mask is None else _mask_fingerprint(given.mask, spec, roi, config.run_directory),
        rules=rules,
        network=network,
        truth=open_truth(config.evaluation, spec, roi, config.run_directory),
        given=heads,
        image_url=given.image,
        organelles=open_organelles(config, spec, roi),
    )
    if given.image is not None:
        known = inputs.fingerprint if network else _image_fingerprint(given.image, spec, roi, config.run_directory)
        inputs = replace(inputs, image_fingerprint=known)
    if config.segmentation.kind == "neurons":
        source_of(config.supervoxels.source, inputs.sources)  # refuses a run without anything to make neurons of
    if config.segmentation.kind == "classes" and config.evaluation.labels is not None:
        require_classes_in(opened.source(config.evaluation.labels))
    return inputs


def _check_far(config: RunConfig, heads: Sequence[HeadSource]) -> None:
    """``ConfigError`` if given affinities lack channels that the run file names, or far ones that are to count."""
    given, far = config.input.affinity_offsets, config.agglomeration.far_offsets
    affinities = next((head for head in heads if head.name == AFFINITIES), None)
    if affinities is not None and affinities.count < len(given):
        raise ConfigError(
            f"input.affinity_offsets names {len(given)} channels, and {affinities.url} has {affinities.count}: name "
            "those that it has"
        )
    if missing := [list(each) for each in far if affinities is None or not {each, -each} & set(given)]:
        raise ConfigError(
            f"agglomeration.far_offsets names {missing}, which input.affinity_offsets does not: add these channels "
            "there, behind the nearest ones, or leave far_offsets out"
        )


def _check_sections(config: RunConfig, rules: SupervoxelRules) -> None:
    """``ConfigError`` if sections are to stay apart, but supervoxels or merges go through several of them."""
    if config.agglomeration.across_sections:
        return
    if 0 in rules.axes:
        raise ConfigError(
            "agglomeration.across_sections is false, and supervoxels go through several sections: set "
            "supervoxels.mode to section"
        )
    if config.agglomeration.stop_score == 0:
        raise ConfigError(
            "agglomeration.across_sections is false, so that affinities between sections count as 0, and "
            "agglomeration.stop_score is 0, down to which regions are merged: set it to 0.01 or more"
        )


def _refuse_part_without_truth(config: Evaluation) -> None:
    """``ConfigError`` for a part to score where there is nothing to score it by."""
    if (config.start or config.stop) and config.labels is None and config.skeletons is None:
        raise ConfigError(
            "evaluation.start and stop say which part is scored, but there is no ground truth: give "
            "evaluation.labels, or leave them out"
        )


def region_of_interest(start: Triple | None, stop: Triple | None, bounds: BoundingBox) -> BoundingBox:
    """The part of the dataset to segment; ``ConfigError`` if it is empty or reaches outside."""
    first, last = as_vec(start or bounds.start, "start"), as_vec(stop or bounds.stop, "stop")
    if not first.below(last) or not bounds.contains(BoundingBox(first, last)):
        raise ConfigError(
            f"the region from {list(first)} to {list(last)} must be a non-empty part of the dataset, "
            f"{list(bounds.start)} to {list(bounds.stop)}: correct start and stop"
        )
    return BoundingBox(first, last)


def supervoxel_rules(config: Supervoxels, resolution_nm: tuple[float, float, float]) -> SupervoxelRules:
    """The rules of the supervoxels with every default filled in; distances use whole nanometres."""
    depth, width = resolution_nm[0], min(resolution_nm[1:])
    auto = config.mode == "auto"
    per_section = depth >= SECTION_RATIO * width if auto else config.mode == "section"
    nm = Vec(*map(round, resolution_nm)).maximum(1)
    defaults = default_rules(nm, per_section)
    largest = 255 * 2 * len(defaults.axes)
    given: dict[str, Any] = {
        "threshold": None if config.threshold is None else round(config.threshold * largest),
        "border_level": round(config.border_level * largest) if config.borders == "evidence" else None,
        "max_distance_nm": config.max_distance_nm,
        "filter_width": config.filter_width,
    }
    return replace(defaults, **{key: value for key, value in given.items() if value is not None})


def open_network(run: RunConfig, spec: VolumeSpec) -> Network:
    """The model card, checked against the image; the weights are checked when they are loaded."""
    from pipeline.inference.lattice import PatchLattice
    from pipeline.models.spec import load_card
    from pipeline.runs.heads import heads_of_run

    config = run.inference
    card = load_card(config.model)
    heads = heads_of_run(run, card)
    patch = config.patch_shape or card.patch_shape
    overlap = config.overlap or card.overlap
    PatchLattice(spec.bounds, patch, overlap)
    if not config.any_resolution:
        _check_resolution(card, spec.resolution_nm)
    return Network(config.model, card, patch, overlap, config, heads)


def open_truth(config: Evaluation, spec: VolumeSpec, roi: BoundingBox, run_directory: str) -> Truth | None:
    """The ground truth, if there is any, checked against the image."""
    if config.labels is None and config.skeletons is None:
        return None
    box = region_of_interest(config.start or roi.start, config.stop or roi.stop, spec.bounds).intersect(roi)
    if box.empty:
        raise ConfigError(
            f"evaluation.start and stop name {list(box.start)} to {list(box.stop)}, of which nothing is in the region "
            f"of interest {roi}: correct them, or leave them out"
        )
    digests = []
    if config.labels is not None:
        labels = _open_labels(config.labels, spec, "the ground truth")
        box = _labelled_part(config, labels, box)
        digests.append(input_fingerprint(labels, box, run_directory))
    if config.skeletons is not None:
        refuse_own_directory(config.skeletons, run_directory)
        digests.append(_skeleton_fingerprint(opened.skeletons(config.skeletons)))
    return Truth(config.labels, config.skeletons, fingerprint(digests), box)


def _labelled_part(config: Evaluation, labels: Volume, box: BoundingBox) -> BoundingBox:
    """The part of the box that the ground truth covers; ``ConfigError`` if there is none, or more was named."""
    common = box.intersect(labels.spec.bounds)
    if common.empty or ((config.start or config.stop) and common != box):
        raise ConfigError(
            f"the ground truth {labels.url} covers {labels.spec.bounds}, and {box} is to be scored: narrow "
            "evaluation.start and stop to what it covers, or correct its place by adding #offset=z,y,x"
        )
    return common


def open_organelles(config: RunConfig, spec: VolumeSpec, roi: BoundingBox) -> tuple[Organelle, ...]:
    """The volumes of objects that lie in neurons, checked against the image; none without the table ``organelles``."""
    table = {} if config.organelles is None else config.organelles.volumes
    return tuple(_open_organelle(name, table[name], spec, roi, config.run_directory) for name in sorted(table))


def _open_organelle(name: str, url: str, spec: VolumeSpec, roi: BoundingBox, run_directory: str) -> Organelle:
    volume = _open_labels(url, spec, f"the volume of {name}")
    box = roi.intersect(volume.spec.bounds)
    if box.empty:
        raise ConfigError(
            f"organelles.volumes.{name} is {url}, which covers {volume.spec.bounds} and so nothing of the region of "
            f"interest {roi}: correct its place by adding #offset=z,y,x"
        )
    return Organelle(name, url, input_fingerprint(volume, box, run_directory), box)


def _open_labels(url: str, spec: VolumeSpec, what: str) -> Volume:
    """Labels on the voxels of the input; ``what`` they are, in messages."""
    volume = opened.source(url)
    if volume.spec.channels is not None or volume.spec.dtype.kind not in "ui":
        raise VolumeError(
            f"{what} {url} holds {volume.spec.dtype} in {counted(volume.spec.channels or 1, 'channel')}; "
            "labels must be integers in one"
        )
    if not same_size(volume.spec.resolution_nm, spec.resolution_nm):
        raise VolumeError(
            f"{what} {url} has voxels of {list(volume.spec.resolution_nm)} nm, the input of "
            f"{list(spec.resolution_nm)} nm; they must be equal: choose another mip (#mip=1), or correct the size by "
            "adding #resolution=z,y,x"
        )
    refuse_image_as_labels(volume)
    if volume.spec.dtype.kind == "i":
        least = min(int(block.min(initial=0)) for block in sample_blocks(volume))
        if least < -MARKS:
            raise VolumeError(
                f"{what} {url} holds {least}; labels are 0 or more, and -1 to -{MARKS} where nothing is "
                "to be scored: write those voxels as 0"
            )
    return volume


def _mask_fingerprint(url: str, spec: VolumeSpec, roi: BoundingBox, run_directory: str) -> str:
    """The fingerprint of a mask on the voxels of the input, or on voxels that hold a whole number of those."""
    volume = opened.source(url)
    mask = mask_on(volume, spec)
    if volume.spec.dtype.kind == "f" and any(np.isnan(block).any() for block in sample_blocks(volume)):
        raise VolumeError(f"the mask {url} holds NaN, which is neither tissue nor none: write 0 outside of the tissue")
    return input_fingerprint(volume, mask.coarse(roi), run_directory)


def _image_fingerprint(url: str, spec: VolumeSpec, roi: BoundingBox, run_directory: str) -> str:
    """The fingerprint of an image beside labels, which are on the same voxels; ``VolumeError`` if they are not."""
    volume = opened.source(url)
    _refuse_other_voxels(f"the image {url}", volume.spec, "input.labels", spec)
    return input_fingerprint(volume, roi, run_directory)


def _refuse_other_voxels(what: str, found: VolumeSpec, first: str, spec: VolumeSpec) -> None:
    """``VolumeError`` unless a volume has the place and the size of voxels of the first one; both in words."""
    if found.bounds != spec.bounds or not same_size(found.resolution_nm, spec.resolution_nm):
        raise VolumeError(
            f"{what} covers {found.bounds} of {list(found.resolution_nm)} nm, {first} {spec.bounds} of "
            f"{list(spec.resolution_nm)} nm; all must have the same voxels: correct place and size by adding "
            "#offset=z,y,x and #resolution=z,y,x"
        )


def _skeleton_fingerprint(skeletons: Skeletons) -> str:
    return fingerprint([array.tolist() for array in (skeletons.nodes_nm, skeletons.edges, skeletons.skeleton)])


def open_head(name: str, url: str, spec: VolumeSpec, roi: BoundingBox, run_directory: str) -> HeadSource:
    """A given head, checked against the voxels of the first one; ``VolumeError`` if it does not fit."""
    volume = opened.source(url)
    _refuse_other_voxels(f"{name} in {url}", volume.spec, "the first of input.heads", spec)
    if not VOLUME.fullmatch(name):
        raise ConfigError(f"input.heads names {name!r}; a head is named by letters, digits, - and _, as in a card")
    _check_head(name, volume, roi)
    return HeadSource(name, url, input_fingerprint(volume, roi, run_directory))


def _check_head(name: str, volume: Volume, roi: BoundingBox) -> None:
    """Refuse channels, types and values that no head has; of the values, a sample of the region is looked at."""
    spec, url = volume.spec, volume.url
    if name == AFFINITIES and ((spec.channels or 0) < 3 or spec.dtype.kind not in "fu"):
        raise VolumeError(
            f"{url} has {spec.channels or 'no'} channels of {spec.dtype}; affinities need at least three "
            "channels (z, y, x) of uint8, or of floating-point numbers from 0 to 1"
        )
    if name == MEMBRANES and spec.channels not in (None, 1):
        raise VolumeError(
            f"{url} has {spec.channels} channels; membranes are one channel: choose it by adding #channel=0"
        )
    if spec.dtype != np.uint8 and spec.dtype.kind != "f":
        scale = f"{np.iinfo(spec.dtype).max}, or the one that it is" if spec.dtype.kind in "ui" else "1"
        raise VolumeError(
            f"{url} holds {spec.dtype}; {name} must be uint8 (255 = {MEANS.get(name, 'sure')}) or float: name the "
            f"value that is sure by adding #scale={scale}"
        )
    blocks = (block[:3] if name == AFFINITIES else block for block in sample_blocks(volume, roi))
    largest = max(int(to_uint8(block, url, name).max(initial=0)) for block in blocks)
    faint = 0 < largest < SURE and spec.dtype == np.uint8
    if faint and not says_scale(parse_location(url)) and origin_of(url) is None:  # the scale of a run's head is known
        guess = 1 if largest == 1 else max(100, largest)
        raise VolumeError(
            f"{url} holds uint8 {name} of which none is larger than {largest} in a sample of the region; "
            f"255 is sure, and {largest} is not: name the value that is sure by adding #scale={guess}, or #scale=255 "
            "if they are meant as they are, or stretch them with `petaseg ingest "
            f"{shlex.quote(url)} {name}_uint8.zarr --to uint8 --percentiles 0,100`"
        )


def resolution_ratio(card: ModelCard, resolution_nm: tuple[float, float, float]) -> float:
    """How many times the voxels are larger or smaller than those that a model was trained on, along the worst axis."""
    return max(max(a / b, b / a) for a, b in zip(resolution_nm, card.resolution_nm, strict=True))


def _check_resolution(card: ModelCard, resolution_nm: tuple[float, float, float]) -> None:
    if resolution_ratio(card, resolution_nm) > RESOLUTION_FACTOR:
        raise ConfigError(
            f"the image has voxels of {list(resolution_nm)} nm; model {card.name} was trained on "
            f"{list(card.resolution_nm)} nm, and each side may differ by a factor of {RESOLUTION_FACTOR} at most: use "
            "another mip or model, train one (`petaseg train`), or set inference.any_resolution=true"
        )
