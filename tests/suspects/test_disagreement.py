"""Blocks where augmented copies disagree: the largest mean spread comes first, from what a run has stored."""

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.shapes.measure_tables import read_table
from pipeline.stages import opened
from pipeline.suspects import disagreement
from pipeline.suspects.disagreement import TABLE, Block, find_blocks, heads_with_extremes, write_blocks
from pipeline.volumes import open_volume
from tests.heads import SHAPE, heads_run
from tests.runs import petaseg, run

COPIES = {"augmentation": "flips", "augmentation_rule": "mean+extremes"}


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Run:
    """A run that has stored extremes, those of its membranes replaced by planted ones."""
    finished = run(heads_run(tmp_path_factory.mktemp("copied"), ["affinities", "membranes"], inference=COPIES))
    for name, values in planted().items():
        volume = open_volume(finished.layout.volume_url(name), mode="r+")
        volume.write(finished.layout.roi, values.reshape(volume.read(finished.layout.roi).shape))
    opened.forget()
    return finished


def planted() -> dict[str, np.ndarray]:
    """The extremes of membranes: they differ anywhere, and most in a block of eight voxels a side."""
    rng = np.random.default_rng(0)
    least = rng.integers(0, 50, SHAPE).astype(np.uint8)
    largest = least + rng.integers(60, 70, SHAPE).astype(np.uint8)
    largest[8:, 8:16, 8:16] += 90
    return {"membranes_least": least, "membranes_largest": largest}


def by_hand() -> list[Block]:
    """The mean spread of all blocks of eight voxels a side, largest first."""
    values, found = planted(), []
    spread = values["membranes_largest"].astype(float) - values["membranes_least"]
    for z, y, x in np.ndindex(2, 3, 3):
        box = tuple(slice(8 * at, min(8 * at + 8, side)) for at, side in zip((z, y, x), SHAPE, strict=True))
        middle = [(each.start + each.stop) // 2 for each in box]
        found.append(Block(*middle, "membranes", spread[box].mean() / 255))
    return sorted(found, key=lambda block: -block.spread)


@pytest.mark.parametrize("read", [8, 16, 64])
def test_blocks_come_by_their_spread(copied, monkeypatch, read):
    """Blocks and their order are those that are computed from whole volumes, whatever is read at once."""
    monkeypatch.setattr(disagreement, "BLOCK", 8)
    monkeypatch.setattr(disagreement, "READ", read)
    monkeypatch.setattr(disagreement, "heads_with_extremes", lambda run: ("membranes",))
    blocks, expected = find_blocks(copied), by_hand()
    assert (blocks[0].z, blocks[0].y, blocks[0].x) == (10, 12, 12)
    assert [(b.z, b.y, b.x, b.head) for b in blocks] == [(b.z, b.y, b.x, b.head) for b in expected]
    assert [b.spread for b in blocks] == pytest.approx([b.spread for b in expected])
    assert find_blocks(copied, top=3) == blocks[:3]


def test_all_heads_with_extremes_are_compared(copied):
    """The heads are those with both volumes, and the table has what was found."""
    assert heads_with_extremes(copied) == ("affinities", "membranes")
    blocks = find_blocks(copied)
    assert {each.head for each in blocks} == {"affinities", "membranes"}
    write_blocks(copied, blocks)
    table = read_table(copied.store.get(TABLE))
    assert table["head"].tolist() == [each.head for each in blocks]
    assert table["spread"].tolist() == [each.spread for each in blocks]


def test_the_command_lists_them(copied):
    """With ``--disagreement`` the command lists the blocks and says how to look at one."""
    said = petaseg("suspects", copied.url, "--disagreement")
    assert said.returncode == 0, said.stderr
    assert "blocks where augmented copies disagree" in said.stdout
    assert "--at 6,10,11" in said.stdout


def test_a_run_without_extremes_is_refused(tmp_path):
    """A run that has not stored them says what to set."""
    finished = run(heads_run(tmp_path, ["affinities", "membranes"]))
    with pytest.raises(ConfigError, match=r"augmentation_rule: mean\+extremes, and predict it again"):
        find_blocks(finished)
