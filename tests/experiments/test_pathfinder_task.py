"""The three experiments on Pathfinder run at a tiny scale, and measure gradients, memory and spectral radii."""

import json

import pytest
import torch
from matplotlib.figure import Figure

from pipeline.experiments.base import Scale, Trials, find_experiment, run_experiment
from pipeline.experiments.crbp_pathfinder import (
    CONTRACTOR,
    LOUDNESS,
    METHODS,
    TERMS,
    draw,
    gradient_errors,
    memory_of,
    methods_of,
)
from pipeline.experiments.pathfinder_task import DEFAULT, FULL, TINY, fresh_network, gradient, images, task_of, trained
from pipeline.experiments.stability import spectral_radius
from pipeline.training.rules import RecurrentBackpropagation

SCALE = Scale(tiny=True, seeds=(0,))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """One folder serves all experiments, as a user would have it, so that they share trials."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="module")
def store(output):
    return Trials(output / "trials")


@pytest.mark.parametrize("name", ["steps", "crbp-pathfinder", "stability"])
def test_a_tiny_scale_ends_in_a_report(output, name):
    folder = run_experiment(find_experiment(name), output, SCALE)
    result = json.loads((folder / "result.json").read_text())
    assert all(len(row) == len(result["columns"]) for row in result["rows"])
    assert (folder / "plot.png").stat().st_size > 10_000


def test_a_network_is_trained_once_for_all_experiments(output):
    """A network that several experiments need is trained once, and each of them reads the same one."""
    for name in "crbp-pathfinder", "stability":
        run_experiment(find_experiment(name), output, SCALE)
    trainings = list((output / "trials").glob("pathfinder-*.safetensors"))
    run_experiment(find_experiment("stability"), output, SCALE)
    assert len({m.training(SCALE, 0).key.__repr__() for m in METHODS}) == len(METHODS) - 1, "short is long, if tiny"
    assert list((output / "trials").glob("pathfinder-*.safetensors")) == trainings


def test_a_network_that_is_read_is_the_one_that_was_trained(store):
    training = METHODS[CONTRACTOR].training(SCALE, 0)
    first, record = trained(store, training, CPU)
    again, same = trained(store, training, CPU)
    assert record == same
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))


def test_held_out_images_are_others(store):
    data, held_out = images(store, TINY, CPU)
    assert not any(torch.equal(a, b) for a in data.images for b in held_out.images)


def test_memory_grows_with_steps_for_bptt_alone(store):
    """The memory of back-propagation through time grows with the number of steps, and that of C-RBP does not."""
    memory = {name: list(sizes.values()) for name, sizes in memory_of(SCALE, store).items()}
    through_time, contractor = memory[METHODS[0].name], memory[METHODS[CONTRACTOR].name]
    assert through_time[0] < through_time[1] < through_time[2]
    assert len(set(contractor)) == 1


def test_the_absolute_cap_gives_the_gradient_of_one_step(store):
    """With the published code's cap, a loss whose gradient exceeds 1 gives the gradient of one step, with no series."""
    network = fresh_network(TINY, 4, 0)
    data = images(store, TINY, CPU)[0]
    capped, report = gradient(network, RecurrentBackpropagation(reference_stopping=True), data, loudness=1e3)
    assert (report.stopped, report.terms) == ("cap", 0)
    assert torch.equal(capped, gradient(network, RecurrentBackpropagation(terms=0), data, loudness=1e3)[0])


def test_more_terms_come_nearer_to_the_steady_state(store):
    network = fresh_network(TINY, 40, 0)
    with torch.no_grad():
        network.cell.alpha.zero_()
        network.cell.mu.zero_()  # the state acts only through the gate: a contraction
    data = images(store, TINY, CPU)[0]
    exact = gradient(network, RecurrentBackpropagation(200, tolerance=1e-7), data)[0]
    errors = [(gradient(network, RecurrentBackpropagation(k, 0.0), data)[0] - exact).norm().item() for k in (0, 3, 9)]
    assert errors[0] > errors[1] > errors[2]


def test_errors_are_measured_once(store):
    assert gradient_errors(SCALE, store, 0) == gradient_errors(SCALE, Trials(store.folder), 0)


def test_the_spectral_radius_of_a_leak_is_what_stays(store):
    """Where the candidate does not depend on the state, the spectral radius is the share that the gate keeps: 0.5."""
    network = fresh_network(TINY, 2, 0)
    cell = network.cell
    with torch.no_grad():
        for vector in cell.alpha, cell.mu, cell.norms[1].gain, cell.norms[1].bias:
            vector.zero_()
        cell.excitation_gate.weight.zero_()
        cell.excitation_gate.bias.fill_(0.0)
    found = spectral_radius(network, images(store, TINY, CPU)[0], 2)
    assert found == pytest.approx(0.5, rel=1e-4)


def test_scales_have_their_own_tasks():
    assert [task_of(s) for s in (Scale(), Scale(full=True), SCALE)] == [DEFAULT, FULL, TINY]


def test_full_scale_goes_to_25_dashes():
    """At full scale every method is trained on curves of 14, 20 and 25 dashes, C-RBP with the published steps."""
    full = Scale(full=True)
    trainings = [method.training(full, 0) for method in methods_of(full)]
    assert [t.task.images["paddles"] for t in trainings] == [14] * 7 + [20] * 7 + [25] * 7
    assert [trainings[CONTRACTOR + 7 * i].steps for i in range(3)] == [20, 30, 80]
    assert len({m.name for m in methods_of(full)}) == 21
    assert max(t.steps for t in trainings if t.rule == "bptt") == 20
    assert all((t.task.count, t.task.kernel) == (20000, 15) for t in trainings)


def test_full_scale_is_drawn_with_a_line_for_each_method_and_number_of_dashes():
    """At full scale all 21 methods have a line of their own: seven colours in three styles."""
    found = {m: [{"looks": [[1, 1.0, 0.5], [2, 2.0, 0.6]]}] for m in methods_of(Scale(full=True))}
    figure = Figure()
    errors = [{"errors": [0.5] * len(TERMS), "capped": [0.5] * len(LOUDNESS)}]
    draw(figure, found, {m.name: {2: 10, 4: 20} for m in found}, errors)
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == [m.name for m in found]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 21
