"""The experiments from the papers run to their report at a tiny scale, and at full scale have the published sizes."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.experiments import bc_bcd, gamma_units, pathfinder_reach, rignet_gates, rignet_iterations, tilt_illusion
from pipeline.experiments.base import Scale, Trials, find_experiment, run_experiment
from pipeline.experiments.crbp_pathfinder import METHODS
from pipeline.experiments.gratings import Gratings, towards
from pipeline.experiments.pathfinder_task import task_of
from pipeline.experiments.self_training import Sizes

TINY = Scale(seeds=(0,), tiny=True)
FULL = Scale(full=True)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """One folder serves all experiments, as a user would have it."""
    return tmp_path_factory.mktemp("experiments")


def table(output, name):
    """Run an experiment at the tiny scale; return the rows of its table, and check its plot and its notes."""
    folder = run_experiment(find_experiment(name), output, TINY)
    assert (folder / "plot.png").stat().st_size > 10_000
    assert json.loads((folder / "result.json").read_text())["notes"]
    with (folder / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_units_have_a_row_each_and_the_cheap_one_has_more_updates_in_equal_time(output):
    """Every unit has a row; the feedforward network does more updates in the time of the fGRU's most steps."""
    rows = table(output, "gamma-units")
    assert [row["unit"] for row in rows] == [str(arm) for arm in gamma_units.ARMS]
    assert [row["T"] for row in rows[:4]] == ["1", "2", "4", "8"]
    assert len({row["free parameters"] for row in rows[:4]}) == 1, "steps have no parameters"
    *equal, longer = rows
    assert {row["updates"] for row in equal} == {"2"}
    assert int(longer["updates"]) > 2
    assert float(rows[3]["kMAC a pixel"]) > 5 * float(rows[0]["kMAC a pixel"])


def test_every_gate_of_rignet_has_a_row_beside_the_plain_host(output):
    """Every gate has a row with its gain over the plain host, whose own gain is 0."""
    rows = table(output, "rignet-gates")
    assert [row["gate"] for row in rows] == [arm.name for arm in rignet_gates.ARMS]
    assert float(rows[0]["gain over the plain host"]) == 0
    sizes = {row["gate"]: int(row["parameters"]) for row in rows}
    assert sizes["network-wide"] < sizes["tanh"] < sizes["multi-range"], "one gate, one a block, and far inputs"


def test_reach_is_read_on_longer_curves_after_t_and_twice_t(output):
    """Each arm is read on curves of three lengths, after T and after 2 T steps."""
    rows = table(output, "pathfinder-reach")
    assert [row["trained by"] for row in rows] == [str(arm) for arm in pathfinder_reach.TINY_ARMS]
    assert all(len(row) == 7 for row in rows)
    assert all(0 <= float(value) <= 1 for row in rows for name, value in row.items() if name != "trained by")


def test_networks_of_pathfinder_are_shared_with_crbp_pathfinder():
    """With the scale's own kernel, the networks of pathfinder-reach are those that crbp-pathfinder trains."""
    crbp = {method.training(Scale(), 0).key.__repr__() for method in METHODS}
    own = [arm.training(Scale(), 0).key.__repr__() for arm in pathfinder_reach.ARMS if arm.kernel == 5]
    assert set(own) <= crbp
    assert len(own) == 2


def test_full_scale_trains_on_14_dashes_and_tests_on_20_and_25():
    """At full scale all networks are trained on 14 dashes, read on 14, 20 and 25, and kernels of 3 have 300 steps."""
    trainings = [arm.training(FULL, 0) for arm in pathfinder_reach.FULL_ARMS]
    assert {t.task.images["paddles"] for t in trainings} == {14}
    tests = [pathfinder_reach.task_of_test(trainings[0].task, FULL, dashes) for dashes in (20, 25)]
    assert [task.images for task in tests] == [{"paddles": 20}, {"paddles": 25}]
    assert max(t.steps for t in trainings if t.task.kernel == 3) == 300
    assert max(t.steps for t in trainings if t.rule == "bptt") == 6


def test_one_update_of_the_full_scale_has_its_sizes():
    """With one update, pictures, networks, patches and steps are those of the full scale; data are few."""
    once = Scale(full=True, one_update=True)
    for module in (gamma_units, rignet_iterations):
        full, tried = module.setting_of(FULL), module.setting_of(once)
        assert tried.fit.updates == 1 < full.fit.updates
        assert replace(tried, fit=full.fit, tests=full.tests) == full
    full, tried = task_of(FULL), task_of(once)
    assert (tried.course.updates, tried.course.batch) == (1, 1)
    assert replace(tried, course=full.course, count=full.count, held_out=full.held_out) == full
    whole, part = tilt_illusion.setting_of(FULL), tilt_illusion.setting_of(once)
    assert (part.gratings.side, part.network, part.config) == (whole.gratings.side, whole.network, whole.config)
    boxes, few = bc_bcd.Sizes.of(FULL), bc_bcd.Sizes.of(once)
    assert replace(few, updates=boxes.updates, volumes=boxes.volumes, tests=boxes.tests) == boxes
    assert replace(Sizes.of(once), updates=20_000) == Sizes.of(FULL)


def test_the_tilt_illusion_goes_from_contours_to_a_curve(output):
    """Every network is read trained, with its first weights, and before its recurrence; trials are kept."""
    rows = table(output, "tilt-illusion")
    assert [(row["network"], row["read"]) for row in rows] == [
        (kind, state) for kind in tilt_illusion.KINDS for state in tilt_illusion.STATES
    ]
    said: list[str] = []
    tilt_illusion.run(TINY, Trials(output / "trials", said.append))
    assert said
    assert all(line.startswith("known") for line in said)


def test_first_weights_are_those_before_training(tmp_path):
    """The γ-Net with its first weights differs from the trained one, and both come back from the store."""
    given = 0, tilt_illusion.setting_of(TINY), TINY, Trials(tmp_path)
    trained, first, _ = tilt_illusion.gamma_trained(*given)
    again, before, _ = tilt_illusion.gamma_trained(*given)
    pairs = zip(trained.parameters(), first.parameters(), again.parameters(), before.parameters(), strict=True)
    same = [(torch.equal(a, c) and torch.equal(b, d), torch.equal(a, b)) for a, b, c, d in pairs]
    assert all(kept for kept, _ in same)
    assert not all(unmoved for _, unmoved in same)


def test_the_curve_is_read_towards_the_surround():
    """A bias away from the surround on both sides is negative, one towards it positive, a common offset nothing."""
    dtheta = np.linspace(-90, 90, 61)
    as_published = 5 - 0.3 * dtheta + 1e-4 * dtheta**3  # repulsion, then attraction
    assert towards(dtheta, as_published, 20.0) == pytest.approx(-5.2)
    assert towards(dtheta, as_published, 75.0) == pytest.approx(19.6875)
    assert towards(dtheta, 0.1 * dtheta + 5, 75.0) == pytest.approx(7.5)


def test_gratings_keep_the_published_proportions():
    """Discs and stripes are as large a part of the image as the published ones."""
    config = Gratings(250, 1, 1).config("test")
    assert (config.radius, config.wavelength, config.part) == ((40.0, 120.0), (15.0, 45.0), "test")


@pytest.mark.parametrize(
    ("module", "trains"),
    [
        (gamma_units, lambda s, st: gamma_units.learner(gamma_units.ARMS[0], s.fit, 0, s)),
        (rignet_gates, lambda s, st: rignet_gates.trial(rignet_gates.ARMS[1], 0, s, st)),
    ],
)
def test_full_scale_trains_on_the_device_of_the_scale(tmp_path, monkeypatch, module, trains):
    """At full scale the networks of the challenge are trained on the device that the scale names."""
    monkeypatch.setattr(Scale, "device", property(lambda self: torch.device("meta")))
    monkeypatch.setattr(gamma_units.challenge, "pictures", lambda *given: None)
    used = []

    def stand_in(*given):
        used.append(given[-1].type)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "Learner", stand_in)
    with pytest.raises(KeyboardInterrupt):
        trains(module.setting_of(FULL), Trials(tmp_path))
    assert used == ["meta"]
