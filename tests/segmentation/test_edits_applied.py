"""The rules of edits, each in the smallest segment that shows it."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.geometry import BoundingBox, Vec
from pipeline.segmentation.edits import Edit, Fit, Members, Overrides, apply_edits
from pipeline.segmentation.merge_tree import Assignment
from pipeline.stages.apply_edits import ApplyEdits
from pipeline.stages.layout import Layout


def chain(segments, sums):
    """Supervoxels 10, 20, 30, ... in a row, with these segments, and these sums on the contacts between neighbours."""
    names = 10 * np.arange(1, len(segments) + 1, dtype=np.uint64)
    edges = np.stack([np.arange(len(sums)), np.arange(len(sums)) + 1], axis=1)
    voxels = np.ones(len(names), np.int64)
    return Members(names, np.array(segments, np.uint64), voxels, edges, np.array(sums, np.int64))


def merge(a, b):
    return Edit("merge", (a,), (b,))


def split(first, second):
    return Edit("split", first, second)


def applied(members, *edits):
    found = apply_edits(edits, members)
    return found.ids.tolist(), [fit.name for fit in found.fits]


def test_a_merge_keeps_the_smaller_name():
    assert applied(chain([10, 10, 30], [1, 1]), merge(30, 20)) == ([10, 10, 10], ["APPLIED"])


def test_a_split_cuts_the_weakest_contact_and_names_each_part_by_its_smallest_supervoxel():
    members = chain([10, 10, 10, 10], [5, 2, 7])
    assert applied(members, split((40,), (10,))) == ([10, 10, 30, 30], ["APPLIED"])


def test_what_a_split_has_cut_stays_cut():
    """Joined again elsewhere, supervoxels 10 and 20 do not hold together by their strong contact, which was cut."""
    members = chain([10, 10, 10, 10, 50], [9, 5, 7, 0])
    edits = split((10,), (20,)), merge(10, 50), merge(50, 40)
    assert applied(members, *edits)[0] == [10, 10, 10, 10, 10]
    assert applied(members, *edits, split((10,), (30,)))[0] == [10, 20, 20, 10, 10]


def test_a_later_split_wins_over_a_merge_and_a_later_merge_over_a_split():
    members = chain([10, 20], [3])
    assert applied(members, merge(10, 20), split((10,), (20,))) == ([10, 20], ["APPLIED"] * 2)
    assert applied(members, merge(10, 20), split((10,), (20,)), merge(20, 10))[0] == [10, 10]


def test_contacts_between_merged_segments_count_in_a_later_split():
    """Two segments that were merged by a far pair are cut where they touch, and the pair stays together."""
    members = chain([10, 10, 30, 30], [9, 4, 9])
    assert applied(members, merge(10, 20), merge(10, 40), split((20,), (30,)))[0] == [10, 10, 30, 10]


def test_a_split_cuts_every_segment_that_holds_both_sides():
    members = chain([10, 10, 30, 30], [1, 1, 1])
    assert applied(members, split((10, 30), (20, 40))) == ([10, 20, 30, 40], ["APPLIED"])


@pytest.mark.parametrize(
    ("edit", "fit"),
    [
        (merge(10, 20), Fit.HELD),
        (split((10,), (30,)), Fit.HELD),
        (merge(10, 25), Fit.MISSING),
        (split((15,), (20,)), Fit.MISSING),
        (split((10, 15), (20,)), Fit.PARTLY),
    ],
)
def test_how_an_edit_fits(edit, fit):
    """Edits without effect, and those whose supervoxels are not there, are told from the others."""
    assert applied(chain([10, 10, 30], [1, 1]), edit)[1] == [fit.name]
    assert fit.fits == (fit is Fit.HELD)


def test_parts_of_several_chunks_add_up():
    """A supervoxel and a contact that two chunks know have the sum of both."""
    one = chain([10, 10, 10], [5, 2])
    found = Members.sum([one, replace(one, edges=one.edges[:, ::-1])])
    assert found.sizes.tolist() == [2, 2, 2]
    assert (found.edges.tolist(), found.sums.tolist()) == ([[0, 1], [1, 2]], [10, 4])
    assert Members.sum([]).supervoxels.dtype == np.uint64


def test_the_table_of_a_chunk_gets_the_final_ids():
    """Renamed segments and moved supervoxels change; all others stay, also those of segments without edits."""
    members = chain([10, 10, 30], [1, 1])
    overrides = Overrides.of(members, apply_edits([split((10,), (20,)), merge(20, 30)], members).ids)
    assert (overrides.segments.tolist(), overrides.supervoxels.tolist()) == ([30], [20])
    names = np.array([10, 11, 20, 30, 40], np.uint64)
    table = Assignment(names, np.array([10, 10, 20, 30, 40], np.uint64), np.array([10, 10, 10, 30, 40], np.uint64))
    assert overrides.apply(table).segment.tolist() == [10, 10, 20, 20, 40]


def test_edits_and_their_order_are_part_of_the_fingerprint():
    box = BoundingBox((0, 0, 0), (8, 8, 8))
    layout = Layout("run", box, box, Vec(8, 8, 8), Vec(8, 8, 8), (8.0, 8.0, 8.0))
    logs = [(), (merge(1, 2),), (merge(2, 1),), (merge(1, 2), split((1,), (2,))), (split((1,), (2,)), merge(1, 2))]
    assert len({ApplyEdits(layout, "cut", log).fingerprint for log in logs}) == len(logs)
