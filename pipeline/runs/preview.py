"""What other thresholds would give, from the merge tree alone: no voxel is read, and nothing is written.

Each node of the tree of boxes is loaded once and cut at every threshold, from the chunks up to the root; then the final
ids go down again. Memory: about 60 bytes for each region and threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.config.run_file import check_thresholds
from pipeline.errors import ConfigError
from pipeline.grid import Chunk
from pipeline.runs.run import Run
from pipeline.runs.summary import Summary, summary_of
from pipeline.runs.unchanged import stored_inputs
from pipeline.segmentation.agglomeration import NodeResult
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
from pipeline.stages.base import checksum_of
from pipeline.stages.build_region_graph import BuildRegionGraph
from pipeline.stages.cut_merge_tree import CutMergeTree, cut_rules
from pipeline.stages.extract_supervoxels import ExtractSupervoxels
from pipeline.stages.relabel import Relabel


@dataclass(frozen=True)
class Preview:
    """A segmentation that is not made."""

    rules: CutRules
    summary: Summary
    rewritten: int
    """Chunks whose labels would be written."""
    chunks: int

    @property
    def is_present(self) -> bool:
        """True if the labels are those that are there."""
        return self.rewritten == 0


def preview(run: Run, thresholds: Sequence[float]) -> list[Preview]:
    """What each threshold would give, with the other rules of the run; its merge tree is complete.

    Raises ``ConfigError`` for a threshold at which the tree cannot be cut.
    """
    refuse_other_kinds(run)
    rules = [_rules(run, threshold) for threshold in thresholds]
    cuts, sizes = _up(run, rules)
    stage = run.stage(Relabel.name)
    stored, done = stored_inputs(run, stage)
    grid, found = stage.grids()[0], []
    fragments = run.ledger(run.stage(ExtractSupervoxels.name), read_only=True).checksums(grid)
    for rule, at, size in zip(rules, cuts, sizes, strict=True):
        tables, same = _down(run, at), 0
        for number, chunk in enumerate(grid):
            table = bytes.fromhex(checksum_of(tables[chunk.name].to_arrays()))
            same += bool(done[number]) and stored[number].tobytes() == fragments[number].tobytes() + table
        summary = summary_of(run, size)
        chosen = replace(run.chosen, value=rule.threshold, source="preview", file=None)
        found.append(Preview(rule, replace(summary, threshold=chosen, warnings=()), len(grid) - same, len(grid)))
    return found


def refuse_other_kinds(run: Run) -> None:
    """``ConfigError`` for a run that makes no neurons: its result is looked at beside the first one."""
    if run.kind.name != "neurons":
        raise ConfigError(
            f"--preview is for neurons, and this run makes {run.kind.words}: write them beside the first ones with "
            "--threshold and --output"
        )


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
