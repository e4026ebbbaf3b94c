"""Sections where affinities collapse: what is planted is found, the same in any chunks, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.shapes.measure_tables import read_table
from pipeline.stages import opened
from pipeline.suspects.sections import TABLE, Sums, collapsed, find_sections, write_sections
from tests.runs import petaseg, run, write_run, write_volume

SHAPE = (30, 24, 28)
CHUNKS = [SHAPE, (10, 12, 14), (7, 24, 9)]


def stack() -> np.ndarray:
    """Affinities whose means drift along z; those along z collapse in section 12, those along x in 20."""
    rng = np.random.default_rng(0)
    found = rng.integers(150, 190, (3, *SHAPE)) + np.arange(SHAPE[0])[:, None, None]
    found[0, 0] = 0
    found[0, 12] -= 60
    found[2, 20] -= 40
    found[1, 25] -= 5
    return found.astype(np.uint8)


def stack_file(folder: Path, chunk=SHAPE, **given: str) -> Path:
    """The run file."""
    affinities = write_volume(folder / "affinities.zarr", stack())
    shapes = {"chunk_shape": list(chunk), "storage_chunk_shape": list(chunk)}
    return write_run(folder, input={"affinities": affinities, **given}, supervoxels={"filter_width": 1}, **shapes)


def test_planted_sections_are_found_in_any_chunks(tmp_path):
    """The two sections are listed with their axis and their means, and the table is the same byte for byte."""
    written = set()
    for number, chunk in enumerate(CHUNKS):
        opened.forget()
        finished = run(stack_file(tmp_path / str(number), chunk))
        sections = find_sections(finished)
        assert [(each.z, each.axis) for each in sections] == [(12, "z"), (20, "x")]
        write_sections(finished, sections)
        written.add((tmp_path / str(number) / "run" / TABLE).read_bytes())
    assert len(written) == 1
    values = stack()
    assert sections[0].mean == pytest.approx(values[0, 12].mean() / 255)
    assert sections[0].expected == pytest.approx(
        np.median([values[0, z].mean() for z in range(4, 21) if z != 12]) / 255
    )
    assert (sections[0].y, sections[0].x) == (12, 14)


def test_masked_voxels_do_not_count(tmp_path):
    """A section of which a mask excludes all but a few voxels is judged by these, and an empty one not at all."""
    mask = np.ones(SHAPE, np.uint8)
    mask[12], mask[20, 1:] = 0, 0
    finished = run(stack_file(tmp_path, mask=write_volume(tmp_path / "mask.zarr", mask)))
    assert [(each.z, each.axis) for each in find_sections(finished)] == [(20, "x")]
    sums = Sums.of(finished)
    assert sums.counts[:, 12].tolist() == [0, 0, 0]
    assert sums.counts[:, 20].tolist() == [28] * 3
    assert sums.sums[2, 20] == stack()[2, 20, 0].sum()


def test_the_command_prints_and_writes_them(tmp_path):
    """With ``--sections`` the command lists them, says how to look at one, and writes the table."""
    file = stack_file(tmp_path)
    run(file)
    assert "collapse" not in petaseg("suspects", file).stdout
    assert not (tmp_path / "run" / TABLE).exists()
    said = petaseg("suspects", file, "--sections")
    assert said.returncode == 0, said.stderr
    assert "sections where affinities collapse" in said.stdout
    assert "--at 12,12,14" in said.stdout
    assert read_table((tmp_path / "run" / TABLE).read_bytes())["z"].tolist() == [12, 20]


@pytest.mark.parametrize("seed", range(3))
def test_even_stacks_have_none(seed):
    """Means that vary from section to section, and stacks of a few sections, have nothing that collapses."""
    sums = np.random.default_rng(seed).integers(150_000, 170_000, 50)
    assert list(collapsed(sums, np.full(50, 1000))) == []
    assert list(collapsed(sums[:2] * [0, 1], np.full(2, 1000))) == []
    alone = np.zeros(50, np.int64)
    alone[[3, 20, 40]] = 1000
    assert list(collapsed(sums, alone)) == []
