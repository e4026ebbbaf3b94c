"""What other thresholds, seeds and sizes make of a mask or of objects, from the basin graph alone: no voxel is read.

Each node of the tree of boxes is united under every choice of rules, from the chunks up to the root; then the final ids
go down again. It is the arithmetic of ``unite_basins`` and ``assign_objects``, and nothing is stored. Memory: about 60
bytes for each fragment and choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.runs.run import Run
from pipeline.segmentation.merge_tree import Assignment
from pipeline.segmentation.objects.basin_graph import BasinGraph
from pipeline.segmentation.objects.object_graph import chunk_objects
from pipeline.segmentation.objects.rules import ObjectRules
from pipeline.segmentation.objects.union import NodeUnion, assign_node, unite
from pipeline.segmentation.sizes import Sizes
from pipeline.stages.build_basin_graph import BuildBasinGraph
from pipeline.stages.unite_basins import UniteBasins


@dataclass(frozen=True)
class ObjectCut:
    """Objects that are not made."""

    sizes: Sizes
    tables: Mapping[str, Assignment]
    """The object of every fragment of a chunk, by the chunk's name."""


def cut_objects(run: Run, rules: Sequence[ObjectRules]) -> list[ObjectCut]:
    """The objects under each choice of rules; the basin graph of the run is complete."""
    stage = run.stage(UniteBasins.name)
    assert isinstance(stage, UniteBasins)
    nodes: list[dict[str, NodeUnion]] = [{} for _ in rules]
    sizes: list[list[Sizes]] = [[] for _ in rules]
    for node in (chunk for grid in stage.grids() for chunk in grid):
        names = [child.name for child in stage.children(node)] if node.level else []
        graphs = [] if node.level else [BasinGraph.from_arrays(run.layout.get_part(BuildBasinGraph.name, node))]
        for rule, done, measured in zip(rules, nodes, sizes, strict=True):
            parts = [*(chunk_objects(graph, rule) for graph in graphs), *(done[name].up for name in names)]
            union = done[node.name] = unite(parts, roi=run.layout.roi, rules=rule)
            measured[:] = [Sizes.sum([*measured, Sizes.of(union.objects, union.voxels)])]
    return [ObjectCut(measured[0], _down(stage, done)) for done, measured in zip(nodes, sizes, strict=True)]


def _down(stage: UniteBasins, nodes: Mapping[str, NodeUnion]) -> dict[str, Assignment]:
    """The table of every chunk, by name; tables of a level are dropped once the one below has its own."""
    above: dict[str, Assignment] = {}
    for grid in reversed(stage.grids()):
        tables = {}
        for node in grid:
            parent = stage.parent(node)
            tables[node.name] = assign_node(nodes[node.name], None if parent is None else above[parent.name])
        above = tables
    return above
