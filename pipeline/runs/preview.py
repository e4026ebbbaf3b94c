"""What other thresholds would give, from stored tables alone: no voxel is read, and nothing is written.

For a mask and objects see ``object_cuts``. Of neurons, each node of the tree of boxes is loaded once and cut at every
threshold, from the chunks up to the root; then the final ids go down again. Memory: about 60 bytes for each region and
threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.config.run_file import check_thresholds
from pipeline.errors import ConfigError
from pipeline.grid import Chunk
from pipeline.runs.object_cuts import cut_objects
from pipeline.runs.run import Run
from pipeline.runs.summary import Summary, lowest_of, summary_of
from pipeline.runs.unchanged import stored_inputs
from pipeline.segmentation.agglomeration import NodeResult
from pipeline.segmentation.edits import Overrides, apply_edits
from pipeline.segmentation.merge_tree import (
    Assignment,
    Clusters,
    CutRules,
    NodeCut,
    assign_node,
    cut_and_measure,
    fragment_clusters,
)
from pipeline.segmentation.region_graph import RegionGraph
from pipeline.segmentation.sizes import Sizes
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.apply_edits import ApplyEdits, sizes_after
from pipeline.stages.base import checksum_of
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.cut_merge_tree import CutMergeTree, cut_rules
from pipeline.stages.cut_tables import CutTables
from pipeline.stages.extract_basins import ExtractBasins
from pipeline.stages.extract_supervoxels import ExtractSupervoxels
from pipeline.stages.landscape import object_rules
from pipeline.stages.relabel import Relabel
from pipeline.stages.write_objects import WriteObjects


@dataclass(frozen=True)
class Preview:
    """A segmentation that is not made."""

    threshold: float
    summary: Summary
    rewritten: int
    """Chunks whose voxels would be written."""
    chunks: int

    @property
    def is_present(self) -> bool:
        """True if the voxels are those that are there."""
        return self.rewritten == 0


def preview(run: Run, thresholds: Sequence[float]) -> list[Preview]:
    """What each threshold would give, with the other rules of the run; its tables are complete.

    Raises ``ConfigError`` for a threshold that cannot be applied to them.
    """
    return _of_neurons(run, thresholds) if run.kind.name == "neurons" else _of_objects(run, thresholds)


def _of_neurons(run: Run, thresholds: Sequence[float]) -> list[Preview]:
    """Cut the merge tree at each threshold."""
    cuts, sizes = _up(run, [_rules(run, threshold) for threshold in thresholds])
    stage, found = run.stage(Relabel.name), []
    for threshold, at, before in zip(thresholds, cuts, sizes, strict=True):
        tables, size = _edited(run, at, _down(run, at), before)
        found.append(_preview(run, threshold, size, _rewritten(run, stage, ExtractSupervoxels.name, tables)))
    return found


def _edited(
    run: Run, cuts: dict[str, NodeCut], tables: dict[str, Assignment], sizes: Sizes
) -> tuple[dict[str, Assignment], Sizes]:
    """The tables of all chunks, and the sizes of all segments, with the edits of the run."""
    stage = run.stage(ApplyEdits.name) if run.edits else None
    if not isinstance(stage, ApplyEdits):
        return tables, sizes
    members = stage.members(CutTables(stage, lambda chunk: cuts[chunk.name]))
    edited = apply_edits(stage.edits, members)
    overrides = Overrides.of(members, edited.ids)
    return {name: overrides.apply(table) for name, table in tables.items()}, sizes_after(sizes, members, edited)


def _of_objects(run: Run, thresholds: Sequence[float]) -> list[Preview]:
    """Unite the basins at each threshold; a voxel between two thresholds changes without a change of its object."""
    assert run.landscape is not None, "the run makes no neurons"
    stage, head, table = run.stage(run.kind.result.name), run.landscape.head, run.config.segmentation
    assert isinstance(stage, WriteObjects)
    lowest = lowest_of(run)
    if low := [each for each in thresholds if each < lowest]:
        raise ConfigError(
            f"--preview: threshold {low[0]:g} is below {lowest:g}, where the stored tables end: give a higher one, or "
            "lower segmentation.lowest_threshold, which computes basins again"
        )
    rules = [object_rules(head, table.model_copy(update={"threshold": each})) for each in thresholds]
    found = []
    for threshold, rule, cut in zip(thresholds, rules, cut_objects(run, rules), strict=True):
        then = replace(stage, threshold=rule.mask)
        found.append(_preview(run, threshold, cut.sizes, _rewritten(run, then, ExtractBasins.name, cut.tables)))
    return found


def _preview(run: Run, threshold: float, sizes: Sizes, rewritten: int) -> Preview:
    """One row: the summary has no warnings, since nothing is made."""
    summary = summary_of(run, sizes)
    assert summary.threshold is not None, "only what is cut from tables has previews"
    chosen = replace(summary.threshold, value=threshold, source="preview", file=None)
    summary = replace(summary, threshold=chosen, warnings=())
    return Preview(threshold, summary, rewritten, len(run.layout.grid()))


def _rewritten(run: Run, stage: ChainStage, fragments: str, tables: Mapping[str, Assignment]) -> int:
    """Chunks whose voxels a stage would write, whose inputs are the fragments of another stage and these tables."""
    stored, done = stored_inputs(run, stage)
    grid, same = stage.grids()[0], 0
    source = run.stage(fragments)
    known = run.ledger(source, read_only=True).checksums(source.grids()[0])
    for number, chunk in enumerate(grid):
        table = bytes.fromhex(checksum_of(tables[chunk.name].to_arrays()))
        same += bool(done[number]) and stored[number].tobytes() == known[number].tobytes() + table
    return len(grid) - same


def _rules(run: Run, threshold: float) -> CutRules:
    """The rules of the run with another threshold."""
    try:
        check_thresholds(threshold, run.config.segmentation.min_size_threshold, run.config.agglomeration.stop_score)
    except ValueError as error:
        raise ConfigError(f"--preview: {error}") from None
    return replace(cut_rules(run.setup), threshold=threshold)


def _up(run: Run, rules: Sequence[CutRules]) -> tuple[list[dict[str, NodeCut]], list[Sizes]]:
    """The cuts of all nodes by name, and the sizes of all segments, for each of the rules."""
    stage = run.stage(CutMergeTree.name)
    assert isinstance(stage, CutMergeTree)
    cuts: list[dict[str, NodeCut]] = [{} for _ in rules]
    parts: list[list[Sizes]] = [[] for _ in rules]
    for node in (chunk for grid in stage.grids() for chunk in grid):
        result = NodeResult.from_arrays(run.layout.get_part(Agglomerate.name, node))
        leaves = _leaves(run, node) if node.level == 0 else []
        names = [child.name for child in stage.children(node)] if node.level else []
        for rule, at, measured in zip(rules, cuts, parts, strict=True):
            cut, ids, voxels = cut_and_measure(result, leaves or [at[name].up for name in names], rule)
            at[node.name] = cut
            measured.append(Sizes.of(ids, voxels))
            if len(measured) > 100:
                measured[:] = [Sizes.sum(measured)]
    return cuts, [Sizes.sum(measured) for measured in parts]


def _leaves(run: Run, chunk: Chunk) -> list[Clusters]:
    return [fragment_clusters(RegionGraph.from_arrays(run.layout.get_part(BuildRegionGraph.name, chunk)))]


def _down(run: Run, cuts: dict[str, NodeCut]) -> dict[str, Assignment]:
    """The table of every chunk, by name; tables of a level are dropped once the one below has its own."""
    stage = run.stage(CutMergeTree.name)
    assert isinstance(stage, CutMergeTree)
    above: dict[str, Assignment] = {}
    for grid in reversed(stage.grids()):
        tables = {}
        for node in grid:
            parent = stage.parent(node)
            tables[node.name] = assign_node(cuts[node.name], None if parent is None else above[parent.name])
        above = tables
    return above
