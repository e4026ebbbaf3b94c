"""Whatever decides about the products of a stage is part of its fingerprint, as a look at the stage alone shows.

Where each of these values comes from, and which stages a change of a run file reaches, are questions to whole runs.
"""

from dataclasses import replace

import pytest

from pipeline.geometry import BoundingBox
from pipeline.inference.options import PredictOptions
from pipeline.models.heads import Head
from pipeline.segmentation.agglomeration import Linkage
from pipeline.segmentation.merge_tree import CutRules
from pipeline.segmentation.supervoxels import default_rules
from pipeline.stages.affinities import AffinitySource
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.assign_segments import AssignSegments
from pipeline.stages.blend_heads import BlendHeads
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.cut_merge_tree import CutMergeTree
from pipeline.stages.evaluate_segmentation import EvaluateSegmentation, Truth
from pipeline.stages.extract_supervoxels import ExtractSupervoxels
from pipeline.stages.layout import Layout
from pipeline.stages.predict_heads import PredictHeads
from pipeline.stages.relabel import Relabel
from pipeline.stages.write_supervoxels import WriteSupervoxels
from tests.inference.networks import NEAREST, affinities_head

BOX = BoundingBox((0, 0, 0), (40, 40, 40))
LAYOUT = Layout("unused", BOX, BOX, (16, 16, 16), (16, 16, 16), (8.0, 8.0, 8.0))
AFFINITIES = AffinitySource("affinities", "written by A")
OPTIONS = PredictOptions(device="cpu")
HEADS = (affinities_head(NEAREST),)
TRUTH = Truth("labels", None, "a truth", BOX)

PREDICT = PredictHeads(LAYOUT, "image", "an image", "card", "weights", (12, 12, 12), (4, 4, 4), OPTIONS, "cpu", HEADS)
BLEND = BlendHeads(LAYOUT, PREDICT)
EXTRACT = ExtractSupervoxels(LAYOUT, AFFINITIES, "mask", "a mask", default_rules((8, 8, 8)))
GRAPH = BuildRegionGraph(LAYOUT, AFFINITIES, "fragments", False)
AGGLOMERATE = Agglomerate(LAYOUT, "graph", Linkage("quantile", 0.5), 0.1)
CUT = CutMergeTree(LAYOUT, "tree", CutRules(0.5, 100, 0.2))
EVALUATE = EvaluateSegmentation(LAYOUT, ("supervoxels", "labels"), TRUTH, ("supervoxels", "labels"), None)
READERS = (AssignSegments(LAYOUT, "cut"), WriteSupervoxels(LAYOUT, "joins"), Relabel(LAYOUT, "table"))
STAGES = (PREDICT, BLEND, EXTRACT, GRAPH, AGGLOMERATE, CUT, EVALUATE, *READERS)

CHANGES = [
    *(
        (PREDICT, {"layout": replace(LAYOUT, **change)})
        for change in ({"chunk_shape": (8, 16, 16)}, {"roi": BoundingBox((1, 0, 0), (40, 40, 40))})
    ),
    (PREDICT, {"image_fingerprint": "another image"}),
    (PREDICT, {"model_digest": "other weights"}),
    (PREDICT, {"patch_shape": (14, 12, 12)}),
    (PREDICT, {"overlap": (4, 4, 6)}),
    (PREDICT, {"options": replace(OPTIONS, precision="bfloat16")}),
    (PREDICT, {"device": "cuda"}),
    (PREDICT, {"heads": (*HEADS, Head("membranes", 3, 1, "sigmoid"))}),
    (PREDICT, {"heads": (replace(HEADS[0], activation="none"),)}),
    (BLEND, {"predicted": replace(PREDICT, model_digest="other weights")}),
    (EXTRACT, {"layout": replace(LAYOUT, resolution_nm=(9.0, 8.0, 8.0))}),
    (EXTRACT, {"affinities": replace(AFFINITIES, fingerprint="written by B")}),
    (EXTRACT, {"mask_fingerprint": "another mask"}),
    (EXTRACT, {"rules": replace(EXTRACT.rules, threshold=EXTRACT.rules.threshold + 1)}),
    (EXTRACT, {"rules": replace(EXTRACT.rules, border_level=1400)}),
    (GRAPH, {"upstream": "other fragments"}),
    (GRAPH, {"histograms": True}),
    (AGGLOMERATE, {"upstream": "another graph"}),
    (AGGLOMERATE, {"linkage": Linkage("mean", 0.5)}),
    (AGGLOMERATE, {"linkage": Linkage("quantile", 0.75)}),
    (AGGLOMERATE, {"stop_score": 0.2}),
    (CUT, {"upstream": "another tree"}),
    *((CUT, {"rules": replace(CUT.rules, **change)}) for change in ({"threshold": 0.6}, {"min_size": 50})),
    (EVALUATE, {"upstream": ("supervoxels", "other labels")}),
    (EVALUATE, {"truth": replace(TRUTH, fingerprint="another truth")}),
    (EVALUATE, {"truth": replace(TRUTH, box=BoundingBox((0, 0, 0), (40, 40, 39)))}),
    *((reader, {"upstream": "something else"}) for reader in READERS),
]


@pytest.mark.parametrize(
    ("stage", "change"),
    CHANGES,
    ids=[f"{stage.name}-{'-'.join(change)}-{n}" for n, (stage, change) in enumerate(CHANGES)],
)
def test_what_decides_about_the_products_changes_the_fingerprint(stage, change):
    assert replace(stage, **change).fingerprint != stage.fingerprint


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_other_arithmetic_changes_the_fingerprint(stage, monkeypatch):
    """A stage whose ``algorithm`` is raised computes its chunks again."""
    before = stage.fingerprint
    monkeypatch.setattr(type(stage), "algorithm", stage.algorithm + 1)
    assert stage.fingerprint != before


def test_the_place_of_a_run_does_not_change_a_fingerprint():
    for stage in STAGES:
        moved = replace(stage, layout=replace(stage.layout, run_url="elsewhere"))
        assert moved.fingerprint == stage.fingerprint
