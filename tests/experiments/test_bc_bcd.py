"""The experiment on decoders of objects: all decode the same heads, and limits are not chosen on what is scored."""

import csv
import json

import pytest

from pipeline.experiments import bc_bcd
from pipeline.experiments.base import Scale, Trials, find_experiment, run_experiment

TINY = Scale(seeds=(0,), tiny=True)


def test_every_decoder_has_a_row_and_all_share_one_training(tmp_path):
    """One network is trained for a seed, and pieces, BC and BCD decode its heads; a second call trains nothing."""
    said = []
    folder = run_experiment(find_experiment("bc-bcd"), tmp_path, TINY, said.append)
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["decoder"] for row in rows] == [*bc_bcd.DECODERS]
    assert len({row["true"] for row in rows}) == 1, "all are scored on the same objects"
    assert float(rows[0]["true"]) > 0
    assert (folder / "plot.png").stat().st_size > 10_000
    assert json.loads((folder / "result.json").read_text())["notes"]
    assert len(said) == 4, "a training and three decoders"
    run_experiment(find_experiment("bc-bcd"), tmp_path, TINY, said.append)
    assert all(line.startswith("known") for line in said[4:])


@pytest.mark.parametrize(("decoder", "heads"), [("pieces", set()), ("BC", {"contours"})])
def test_decoders_differ_in_the_heads_that_seeds_need(decoder, heads):
    """Connected pieces have no seeds, BC looks at contours, and only BCD at the distance too."""
    assert {name for each in bc_bcd.seeds_of(decoder) for name in each} == heads
    both = list(bc_bcd.seeds_of("BCD"))
    assert len(both) == len(bc_bcd.CONTOURS) * len(bc_bcd.DISTANCES)
    assert all({*each} == {"contours", "signed_distance"} for each in both)


def test_test_volumes_are_of_another_seed_than_those_of_a_training(tmp_path):
    """No test volume is among the training volumes of the default seeds, and each data set has a folder of its own."""
    store, sizes = Trials(tmp_path), bc_bcd.Sizes.of(TINY)
    assert bc_bcd.TEST_SEED not in find_experiment("bc-bcd").seeds
    assert bc_bcd.data(0, 2, sizes, store) != bc_bcd.data(bc_bcd.TEST_SEED, 2, sizes, store)
