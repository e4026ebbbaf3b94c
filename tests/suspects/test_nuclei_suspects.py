"""Neurons with two nuclei as suspects: the join between them is found, the same in any chunks."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.runs.run import Run
from pipeline.shapes.organelles import hosts_of, table_of
from pipeline.stages import opened
from pipeline.suspects.candidates import Candidates, find_candidates
from pipeline.suspects.costs import Costs
from pipeline.suspects.listing import TABLE, write_list
from pipeline.suspects.model import Model
from pipeline.suspects.ranking import rank
from pipeline.suspects.tables import Tables
from tests.runs import petaseg, run, write_volume
from tests.suspects.planted_bars import NM, SHAPE, bars_run

NUCLEI = {9: (15, 55, 20), 4: (25, 90, 55), 5: (15, 25, 30), 7: (25, 20, 55), 8: (25, 28, 55)}
"""A nucleus in the first bar, three in the second, two of which lie in the same supervoxels, and one in the third."""


def nuclei_run(folder: Path, chunk=SHAPE, name: str = "nuclei") -> Run:
    """A finished run of bars with nuclei."""
    opened.forget()
    found = np.zeros(SHAPE, np.uint32)
    for label, (z, y, x) in NUCLEI.items():
        found[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3] = label
    folder.mkdir(exist_ok=True)
    volume = write_volume(folder / "nuclei.zarr", found, resolution_nm=(NM, NM, NM))
    return run(bars_run(folder, chunk, skeletons=None, organelles={"volumes": {name: volume}}))


def found(finished: Run, **tables: str) -> Candidates:
    """The candidates of two nuclei."""
    (part,) = (each for each in find_candidates(Tables(finished, **tables)) if each.kind == "nuclei")
    return part


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """A run whose volume of nuclei has another name."""
    return nuclei_run(tmp_path_factory.mktemp("nuclei"), (23, 50, 43), "cores")


def test_the_join_between_two_nuclei_is_found(finished):
    """Of a neuron with four nuclei, the joins between them are listed, the one that merged two bars among them."""
    nuclei = found(finished, nuclei="cores")
    crossing = (np.abs(nuclei.sides - 12_000) < 120).all(axis=1)
    assert crossing.sum() == 1
    (segment,) = set(nuclei.segments.ravel().tolist())
    labels = finished.layout.read("labels", finished.layout.roi)
    assert labels[15, 55, 20] == labels[25, 90, 55] == segment
    assert labels[15, 25, 30] != segment
    assert np.exp(nuclei.feature("nucleus")) == pytest.approx([125] * len(nuclei))
    supervoxels = finished.layout.read("supervoxels", finished.layout.roi)
    apart = {int(supervoxels[place]) for label, place in NUCLEI.items() if label != 5}
    assert len(nuclei) == len(apart) - 1


def test_any_chunks_give_the_same_list(tmp_path):
    """The list with neurons of two nuclei is the same byte for byte in any chunks."""
    written = set()
    for number, chunk in enumerate([SHAPE, (23, 50, 43), (40, 31, 120)]):
        made = nuclei_run(tmp_path / str(number), chunk)
        ranked, places = rank(made, Model.bundled(), Costs(look=0, look_merger=0))
        assert "nuclei" in ranked.kind
        assert (places >= 0).all()
        write_list(made, ranked, places)
        written.add((tmp_path / str(number) / "run" / TABLE).read_bytes())
    assert len(written) == 1


def test_the_command_takes_the_name_of_the_volume(finished):
    """Nuclei are looked at under the name that the user gives, and a name that is not there is refused."""
    said = petaseg("suspects", finished.url, "--nuclei", "cores")
    assert said.returncode == 0, said.stderr
    assert "neurons with two nuclei" in said.stdout.split("looked at:")[1].split("\n")[0]
    usual = petaseg("suspects", finished.url)
    assert usual.returncode == 0, usual.stderr
    assert "neurons with two nuclei" not in usual.stdout.split("looked at:")[1].split("\n")[0]
    refused = petaseg("suspects", finished.url, "--nuclei", "kernels")
    assert refused.returncode != 0
    assert "--nuclei kernels: organelles.volumes of" in refused.stderr
    assert "has cores; name one" in refused.stderr.replace("\n", " ")


def test_hosts_are_those_with_most_of_an_object():
    """Objects come with the id that has most of them, without those that lie in none or too little in one."""
    from pipeline.shapes.measure_tables import to_parquet
    from pipeline.shapes.organelles import COLUMNS

    objects = np.array([1, 1, 2, 3, 3, 3], np.uint64)
    ids = np.array([5, 6, 0, 5, 6, 7], np.uint64)
    table = table_of("nuclei", objects, ids, np.array([10, 30, 9, 4, 3, 3]))
    data = to_parquet([table], COLUMNS)
    assert [column.tolist() for column in hosts_of(data, "nuclei", 0.5)] == [[1], [6], [30]]
    assert [column.tolist() for column in hosts_of(data, "nuclei", 0.4)] == [[1, 3], [6, 5], [30, 4]]
    assert [column.tolist() for column in hosts_of(data, "others", 0.0)] == [[], [], []]
