"""The kernels agree with a slow reading of the rules, and chunked with unchunked runs, byte for byte."""

import itertools
from dataclasses import replace
from math import isqrt

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.segmentation import supervoxels
from pipeline.segmentation.heights import FRACTION_BITS
from pipeline.segmentation.supervoxels import (
    SupervoxelRules,
    Supervoxels,
    default_rules,
    extract_supervoxels,
)

NO_HEIGHT = -(10**12)


# ---------------------------------------------------------------- a slow implementation of the rules


def slow_evidence(affinities, rules):
    total = np.zeros(affinities.shape[1:], np.int64)
    for axis in rules.axes:
        low = affinities[axis].astype(np.int64)
        n = low.shape[axis]
        high = np.take(low, range(1, n + 1), axis, mode="clip")
        last, first = ([slice(None)] * 3 for _ in range(2))
        last[axis], first[axis] = n - 1, 0
        high[tuple(last)] = low[tuple(last)]
        low[tuple(first)] = high[tuple(first)]
        total += low + high if n > 1 else 510
    return total


def slow_distances(kind, rules):
    """Distance in 1/256 nm of each voxel of the kind to the nearest voxel not of it, capped; 0 for the others."""
    cap = rules.max_distance_nm
    squares = np.zeros(kind.shape, np.int64)
    planes = [(slice(z, z + 1),) for z in range(len(kind))] if rules.per_section else [(slice(None),)]
    for plane in planes:
        own, other = np.argwhere(kind[plane]), np.argwhere(~kind[plane])
        steps = (own[:, None] - other[None]) * np.array(rules.resolution_nm)
        near = (steps**2).sum(-1).min(1, initial=cap**2)
        squares[plane][tuple(own.T)] = near
    return np.array([isqrt(int(s) << (2 * FRACTION_BITS)) for s in squares.ravel()]).reshape(kind.shape)


def slow_heights(affinities, mask, rules):
    evidence = slow_evidence(affinities, rules)
    inside = (evidence >= rules.threshold) & (True if mask is None else mask)
    clear = np.minimum(evidence, rules.saturation) * rules.evidence_nm * 256 // rules.saturation
    size = [rules.filter_width if a in rules.axes else 1 for a in range(3)]
    value = np.where(inside, slow_distances(inside, rules) + clear, 0)
    within = ndimage.convolve(value, np.ones(size, np.int64), mode="nearest")
    outside = slow_distances(~inside, rules)
    heights = np.where(inside, within, -outside)
    heights[outside >= rules.max_distance_nm << FRACTION_BITS] = NO_HEIGHT
    if mask is not None:
        heights[~mask] = NO_HEIGHT
    border = (evidence < rules.border_level) & (heights != NO_HEIGHT)
    return np.where(border, evidence - rules.border_level, heights)


def slow_supervoxels(affinities, mask, rules, start, bounds):
    """Ids of the whole region by the definition: pointers, components, first voxels."""
    heights = slow_heights(affinities, mask, rules)
    shape = heights.shape
    full_height = 256 * (rules.max_distance_nm + rules.evidence_nm) * rules.filter_width ** len(rules.axes)
    pairs = []
    for voxel in np.argwhere(heights != NO_HEIGHT):
        key = (heights[tuple(voxel)], -np.ravel_multi_index(voxel, shape))
        best, target = key, None
        for axis, step in itertools.product(rules.axes, (-1, 1)):
            there = voxel.copy()
            there[axis] += step
            if not 0 <= there[axis] < shape[axis] or heights[tuple(there)] == NO_HEIGHT:
                continue
            other = (heights[tuple(there)], -np.ravel_multi_index(there, shape))
            if other > best:
                best, target = other, there
            if key[0] == other[0] == full_height:
                pairs.append((-key[1], -other[1]))
        if target is not None:
            pairs.append((-key[1], -best[1]))
    return component_ids(heights, pairs, start, bounds)


def component_ids(heights, pairs, start, bounds):
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(heights.size, heights.size))
    _, component = connected_components(links, directed=False)
    places = np.indices(heights.shape).reshape(3, -1) + (np.array(start) - bounds.start)[:, None]
    linear = np.ravel_multi_index(places, bounds.shape)
    first = np.full(component.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, component, linear)
    ids = (first[component] + 1).astype(np.uint64).reshape(heights.shape)
    return np.where(heights == NO_HEIGHT, np.uint64(0), ids)


# ---------------------------------------------------------------- chunks and their joins


def extract(affinities, mask, roi, bounds, rules, core=None, read_box=None) -> Supervoxels:
    """Supervoxels of a core of a region whose affinities are all at hand; the core is the region by default."""
    core = core or roi
    read_box = read_box or core.grow(*rules.halo()).intersect(roi)
    part = read_box.slices(roi.start)
    return extract_supervoxels(
        affinities[:, *part],
        None if mask is None else mask[part],
        read_box=read_box,
        core=core,
        roi=roi,
        bounds=bounds,
        rules=rules,
    )


def joined(affinities, mask, roi, bounds, rules, chunk_shape):
    """All chunks by themselves, then united over their joins; also the number of fragments."""
    whole = np.zeros(bounds.shape, np.uint64)
    joins = []
    for chunk in ChunkGrid(bounds, roi, chunk_shape, rules.halo()):
        part = extract(affinities, mask, roi, bounds, rules, chunk.core, chunk.read_box)
        whole[chunk.core.slices(bounds.start)] = part.ids
        joins.append(part.joins)
    voxel, axis = np.concatenate(joins).T
    strides = np.array([bounds.shape[1] * bounds.shape[2], bounds.shape[2], 1])
    flat = whole.ravel()
    ends = np.stack([flat[voxel], flat[voxel - strides[axis]]])
    assert (ends > 0).all(), "a join touches a voxel without a label"
    return smallest_ids(whole[roi.slices(bounds.start)], ends)


def smallest_ids(ids, ends):
    names, numbers = np.unique(np.concatenate([ids.ravel(), ends.ravel()]), return_inverse=True)
    a, b = numbers[ids.size :].reshape(2, -1)
    links = coo_array((np.ones(len(a)), (a, b)), shape=(len(names), len(names)))
    _, component = connected_components(links, directed=False)
    least = np.full(component.max() + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, component, names)
    return least[component][numbers[: ids.size]].reshape(ids.shape)


# ---------------------------------------------------------------- random tissue


def tissue(rng, shape, smoothness):
    """Random affinities: pure noise, or smooth ones with cells and membranes."""
    noise = rng.normal(size=(3, *shape))
    if smoothness:
        noise = ndimage.gaussian_filter(noise, (0, *[smoothness] * 3))
        noise /= noise.std() + 1e-9
    return np.clip(noise * 100 + 160, 0, 255).astype(np.uint8)


@st.composite
def problems(draw, largest=18):
    """Affinities of a region somewhere in a dataset, a mask or none, and rules."""
    shape = tuple(draw(st.integers(1, largest)) for _ in range(3))
    start = tuple(draw(st.integers(-3, 4)) for _ in range(3))
    before, after = (tuple(draw(st.integers(0, 3)) for _ in range(3)) for _ in range(2))
    roi = BoundingBox.from_shape(shape, start)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    affinities = tissue(rng, shape, draw(st.sampled_from([0, 1, 2, 3])))
    mask = rng.random(shape) < draw(st.sampled_from([0.5, 0.9, 0.99])) if draw(st.booleans()) else None
    per_section = draw(st.booleans())
    resolution = draw(st.sampled_from([(1, 1, 1), (8, 8, 8), (9, 7, 5), (50, 5, 5), (4, 4, 6)]))
    largest_sum = 1020 if per_section else 1530
    threshold = draw(st.integers(0, largest_sum))
    rules = SupervoxelRules(
        threshold=threshold,
        max_distance_nm=draw(st.integers(1, 6 * min(resolution))),
        filter_width=draw(st.sampled_from([1, 3, 5])),
        per_section=per_section,
        resolution_nm=resolution,
        evidence_nm=draw(st.sampled_from([0, min(resolution), 5 * min(resolution)])),
        saturation=draw(st.integers(1, largest_sum)),
        border_level=draw(st.just(0) | st.integers(threshold, largest_sum)),
    )
    return affinities, mask, roi, roi.grow(before, after), rules


CHUNKS = st.tuples(*[st.integers(2, 20)] * 3)


@given(problems(largest=9))
@settings(max_examples=60, deadline=None)
def test_the_kernels_follow_the_rules_as_written(problem):
    affinities, mask, roi, bounds, rules = problem
    part = extract(affinities, mask, roi, bounds, rules)
    np.testing.assert_array_equal(part.ids, slow_supervoxels(affinities, mask, rules, roi.start, bounds))
    assert part.joins.shape == (0, 2)
    assert part.ids.dtype == np.uint64
    assert part.joins.dtype == np.int64


@given(problems(), CHUNKS, st.sampled_from([1, 1, 2, supervoxels.RIM]))
@settings(max_examples=200, deadline=None)
def test_chunks_united_over_joins_equal_the_unchunked_run(problem, chunk_shape, rim):
    """The equality holds also for the thinnest rim; a wide rim nearly always hides a halo that is too small."""
    affinities, mask, roi, bounds, rules = problem
    expected = extract(affinities, mask, roi, bounds, rules).ids
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervoxels, "RIM", rim)
        np.testing.assert_array_equal(joined(affinities, mask, roi, bounds, rules, chunk_shape), expected)


def chain(affinities_along_x):
    """A row of voxels: these affinities along x, and equal ones along z and y."""
    row = np.full((3, 1, 1, len(affinities_along_x)), 100, np.uint8)
    row[2, 0, 0] = affinities_along_x
    return row, np.ones(row.shape[1:], np.bool_)


def two_towers():
    """Two towers of the full height that touch at their tops alone, across the face between x = 1 and x = 2."""
    mask = np.ones((2, 1, 3), np.bool_)
    mask[0, 0, 1] = False
    return np.full((3, 2, 1, 3), 255, np.uint8), mask


@pytest.mark.parametrize(
    ("problem", "chunk_shape"),
    [
        (chain([0, 20, 40, 60, 80, 100, 120, 140]), (1, 1, 4)),
        (chain([0, 140, 120, 100, 80, 60, 40, 20]), (1, 1, 4)),
        (two_towers(), (2, 1, 2)),
    ],
    ids=["summit beyond the high face", "summit beyond the low face", "plateau"],
)
def test_a_basin_that_a_chunk_face_cuts_is_one_supervoxel(problem, chunk_shape):
    """A basin is joined across a chunk face if a pointer crosses it on either side, or if a plateau goes on."""
    affinities, mask = problem
    roi = BoundingBox.from_shape(mask.shape)
    rules = SupervoxelRules(0, 1, 1, False, (8, 8, 8), evidence_nm=100)
    whole = joined(affinities, mask, roi, roi, rules, chunk_shape)
    np.testing.assert_array_equal(whole, mask.astype(np.uint64))


@pytest.mark.parametrize("per_section", [False, True])
@pytest.mark.parametrize("smoothness", [0, 1, 2])
def test_many_small_chunks_of_large_noise_equal_one_chunk(per_section, smoothness, monkeypatch):
    """There are many faces and short distances, so every voxel of the halo decides something somewhere."""
    monkeypatch.setattr(supervoxels, "RIM", 1)
    roi = BoundingBox.from_shape((48, 48, 48))
    affinities = tissue(np.random.default_rng(smoothness), roi.shape, smoothness)
    for width, distance, evidence_nm in itertools.product((1, 3), (9, 20), (0, 30)):
        threshold = 640 if per_section else 960
        rules = SupervoxelRules(threshold, distance, width, per_section, (8, 8, 8), evidence_nm)
        for each in (rules, replace(rules, border_level=threshold + 300)):
            expected = extract(affinities, None, roi, roi, each).ids
            np.testing.assert_array_equal(joined(affinities, None, roi, roi, each, (7, 8, 9)), expected)


@given(problems(largest=14), CHUNKS, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_voxels_beyond_the_halo_change_nothing(problem, chunk_shape, seed):
    affinities, mask, roi, bounds, rules = problem
    rng = np.random.default_rng(seed)
    grid = ChunkGrid(bounds, roi, chunk_shape, rules.halo())
    chunk = grid.chunk(grid.index_at(int(rng.integers(len(grid)))))
    least = extract(affinities, mask, roi, bounds, rules, chunk.core, chunk.read_box)
    other = rng.integers(0, 256, affinities.shape).astype(np.uint8)
    other_mask = rng.random(roi.shape) < 0.5
    seen = chunk.read_box.slices(roi.start)
    other[:, *seen] = affinities[:, *seen]
    other_mask[seen] = True if mask is None else mask[seen]
    more = extract(other, other_mask, roi, bounds, rules, chunk.core, roi)
    np.testing.assert_array_equal(more.ids, least.ids)
    np.testing.assert_array_equal(more.joins, least.joins)


def test_affinities_on_the_first_planes_of_the_region_are_not_used():
    roi = BoundingBox.from_shape((9, 10, 11))
    rules = SupervoxelRules(900, 40, 3, False, (8, 8, 8))
    affinities = tissue(np.random.default_rng(1), roi.shape, 2)
    other = affinities.copy()
    other[0, 0], other[1, :, 0], other[2, :, :, 0] = 0, 7, 255
    first, second = (extract(a, None, roi, roi, rules).ids for a in (affinities, other))
    np.testing.assert_array_equal(first, second)


def test_one_voxel_less_of_context_than_the_halo_gives_other_supervoxels(monkeypatch):
    """In this tissue chunks with the whole halo equal one chunk, and chunks with one voxel less do not."""
    monkeypatch.setattr(supervoxels, "RIM", 1)
    roi = BoundingBox.from_shape((12, 12, 12))
    affinities = tissue(np.random.default_rng(4), roi.shape, 1)
    rules = SupervoxelRules(960, 9, 1, False, (8, 8, 8))
    expected = extract(affinities, None, roi, roi, rules).ids
    np.testing.assert_array_equal(joined(affinities, None, roi, roi, rules, (4, 4, 4)), expected)
    thin = [tuple(n - 1 for n in side) for side in rules.halo()]
    monkeypatch.setattr(SupervoxelRules, "halo", lambda self: thin)
    assert (joined(affinities, None, roi, roi, rules, (4, 4, 4)) != expected).any()


@pytest.mark.parametrize("per_section", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [0, 1])
def test_the_halo_is_the_smallest_that_is_enough(per_section, axis, side):
    """One voxel less of context on this side changes some result, so no chunk reads more than it needs."""
    rules = SupervoxelRules(700 if not per_section else 450, 20, 3, per_section, (8, 8, 8))
    halo = [list(v) for v in rules.halo()]
    if halo[side][axis] == 0:
        assert per_section
        assert axis == 0
        return
    outermost = halo[side][axis]
    core = BoundingBox.from_shape((8, 8, 8), (20, 20, 20))
    roi = core.grow((12, 12, 12))
    plane = core.start[axis] - outermost if side == 0 else core.stop[axis] - 1 + outermost
    assert any(_plane_matters(seed, axis, plane, core, roi, rules) for seed in range(400))


def _plane_matters(seed, axis, plane, core, roi, rules):
    rng = np.random.default_rng(seed)
    affinities = tissue(rng, roi.shape, 1)
    other = affinities.copy()
    at = [slice(None)] * 4
    at[axis + 1] = plane - roi.start[axis]
    other[tuple(at)] = rng.integers(0, 2, other[tuple(at)].shape) * 255
    a, b = (extract(v, None, roi, roi, rules, core) for v in (affinities, other))
    return not (np.array_equal(a.ids, b.ids) and np.array_equal(a.joins, b.joins))


@pytest.mark.parametrize(
    ("resolution_nm", "per_section"), [((8, 8, 8), False), ((50, 5, 5), True), ((15, 6, 6), False)]
)
def test_default_rules_work_per_section_where_voxels_are_deep(resolution_nm, per_section):
    assert default_rules(resolution_nm).per_section == per_section


def test_a_solid_block_is_one_supervoxel_though_its_middle_is_flat():
    roi = BoundingBox.from_shape((20, 30, 40))
    affinities = np.full((3, *roi.shape), 255, np.uint8)
    affinities[:, :, 14:16] = 0
    part = extract(affinities, None, roi, roi, SupervoxelRules(900, 24, 3, False, (8, 8, 8)))
    assert list(np.unique(part.ids)) == [1, 1 + 15 * 40]


def test_tissue_without_any_inside_gets_no_label():
    roi = BoundingBox.from_shape((5, 6, 7))
    part = extract(np.zeros((3, 5, 6, 7), np.uint8), None, roi, roi, SupervoxelRules(1, 24, 3, False, (8, 8, 8)))
    assert not part.ids.any()


def test_no_basin_crosses_the_mask():
    roi = BoundingBox.from_shape((6, 6, 31))
    affinities = np.full((3, *roi.shape), 255, np.uint8)
    mask = np.ones(roi.shape, np.bool_)
    mask[:, :, 15] = False
    part = extract(affinities, mask, roi, roi, SupervoxelRules(900, 24, 3, False, (8, 8, 8)))
    assert not part.ids[~mask].any()
    assert not set(part.ids[:, :, :15].ravel()) & set(part.ids[:, :, 16:].ravel())


def test_per_section_supervoxels_stay_in_their_section():
    roi = BoundingBox.from_shape((4, 40, 40))
    affinities = tissue(np.random.default_rng(0), roi.shape, 3)
    ids = extract(affinities, None, roi, roi, SupervoxelRules(600, 40, 3, True, (50, 5, 5))).ids
    sections = [set(np.unique(s)) - {0} for s in ids]
    assert all(sections)
    assert sum(map(len, sections)) == len(set().union(*sections))


@pytest.mark.parametrize("chunk_shape", [(64, 64, 64), (50, 83, 125), (37, 41, 53)])
def test_real_tissue_in_chunks_equals_one_chunk(shared_data, chunk_shape):
    with h5py.File(shared_data / "fib25_train2_affinities.h5") as file:
        affinities = file["affinities"][:, 90:180, 60:190, 40:170]
    bounds = BoundingBox.from_shape((250, 250, 250))
    roi = BoundingBox((90, 60, 40), (180, 190, 170))
    rules = default_rules((8, 8, 8))
    for each in (rules, replace(rules, border_level=1377)):
        expected = extract(affinities, None, roi, bounds, each).ids
        np.testing.assert_array_equal(joined(affinities, None, roi, bounds, each, chunk_shape), expected)


def test_a_border_by_evidence_lies_where_the_affinities_are_least():
    """A membrane that is wide and darkest on its right: half-way by distance, at its darkest by evidence."""
    row = chain([0, 255, 255, 255, 255, 80, 70, 60, 50, 40, 20, 0, 255, 255, 255])[0]
    roi = BoundingBox.from_shape(row.shape[1:])
    rules = SupervoxelRules(1190, 80, 1, False, (8, 8, 8))
    by_distance, by_evidence = (
        extract(row, None, roi, roi, replace(rules, border_level=level)).ids.ravel() for level in (0, 1377)
    )
    assert np.flatnonzero(np.diff(by_distance)).tolist() == [7]
    assert np.flatnonzero(np.diff(by_evidence)).tolist() == [9]


RULES = {"threshold": 900, "max_distance_nm": 80, "filter_width": 3, "per_section": False, "resolution_nm": (8, 8, 8)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 1531}, "threshold is 1531; .* 0 to 1530"),
        ({"threshold": 1021, "per_section": True}, "0 to 1020"),
        ({"filter_width": 4}, "filter_width is 4; it must be odd.* take 5"),
        ({"max_distance_nm": 0}, "max_distance_nm is 0"),
        ({"max_distance_nm": 801}, "1 to 800"),
        ({"resolution_nm": (8, 8, 0)}, "resolution_nm is 0"),
        ({"saturation": 1531}, "saturation is 1531"),
        ({"evidence_nm": -1}, "evidence_nm is -1"),
        ({"border_level": 1531}, "border_level is 1531"),
        ({"border_level": 450}, "border_level is 0.294, which is below supervoxels.threshold, 0.588"),
        ({"max_distance_nm": 800, "filter_width": 23}, "lower filter_width"),
    ],
)
def test_impossible_rules_are_refused_with_the_remedy(change, words):
    with pytest.raises(ConfigError, match=words):
        SupervoxelRules(**(RULES | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"affinities": np.zeros((3, 5, 5, 5), np.float32)}, "must be uint8"),
        ({"affinities": np.zeros((3, 5, 5, 4), np.uint8)}, "must be uint8"),
        ({"mask": np.zeros((5, 5, 5), np.uint8)}, "must be bool"),
        ({"core": BoundingBox.from_shape((6, 5, 5))}, "part of the region of interest"),
        ({"bounds": BoundingBox.from_shape((4, 5, 5))}, "outside the dataset"),
        ({"roi": BoundingBox.from_shape((5, 5, 6)), "bounds": BoundingBox.from_shape((9, 9, 9))}, "read box"),
    ],
)
def test_arrays_and_boxes_that_do_not_fit_are_refused(change, words):
    box = BoundingBox.from_shape((5, 5, 5))
    call = {"affinities": np.zeros((3, 5, 5, 5), np.uint8), "mask": None}
    call |= {"read_box": box, "core": box, "roi": box, "bounds": box, "rules": SupervoxelRules(**RULES)}
    with pytest.raises(ConfigError, match=words):
        extract_supervoxels(**(call | change))
