"""The stages of a run, in no order; ``pipeline.runs.run`` chains them.

A new stage is one file here, one line in ``STAGES``, and its place in ``pipeline.runs.run.build_stages``.
"""

STAGES = {
    "predict_affinities": "pipeline.stages.predict_affinities:PredictAffinities",
    "extract_supervoxels": "pipeline.stages.extract_supervoxels:ExtractSupervoxels",
    "build_region_graph": "pipeline.stages.build_region_graph:BuildRegionGraph",
    "agglomerate": "pipeline.stages.agglomerate:Agglomerate",
    "cut_merge_tree": "pipeline.stages.cut_merge_tree:CutMergeTree",
    "assign_segments": "pipeline.stages.assign_segments:AssignSegments",
    "write_supervoxels": "pipeline.stages.write_supervoxels:WriteSupervoxels",
    "relabel": "pipeline.stages.relabel:Relabel",
    "evaluate_segmentation": "pipeline.stages.evaluate_segmentation:EvaluateSegmentation",
}
"""Stage name -> "module:class", loaded when a run asks for it."""
