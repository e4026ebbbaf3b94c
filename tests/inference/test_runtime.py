"""A forward pass sets the state of torch that its results depend on, and restores it."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from pipeline.geometry import BoundingBox
from pipeline.inference.lattice import PatchLattice
from pipeline.inference.options import PredictOptions
from pipeline.inference.predictor import Predictor
from pipeline.inference.runtime import _cuda_algorithms, environment_names, forward_state
from tests.inference.networks import convolutional

BOX = BoundingBox.from_shape((9, 13, 13))


def digest_of_a_prediction() -> str:
    """Hex digest of affinities that every process must agree on."""
    import hashlib

    image = np.random.default_rng(0).integers(0, 256, BOX.shape, dtype=np.uint8)
    predictor = Predictor(convolutional(), PredictOptions(device="cpu", augmentation="flips"))
    affinities, _ = predictor.predict(image, core=BOX, lattice=PatchLattice(BOX, (8, 10, 10), (2, 3, 3)))
    return hashlib.sha256(affinities.tobytes()).hexdigest()


def test_another_process_computes_the_same_bytes():
    code = "from tests.inference.test_runtime import digest_of_a_prediction; print(digest_of_a_prediction())"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    other = subprocess.run(command, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest_of_a_prediction()


def test_options_and_lattices_load_no_torch():
    """Options and lattices are used to plan and to configure, where three seconds of import matter."""
    code = "import pipeline.inference.options, pipeline.inference.lattice, sys; sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"padding": 1},
        {"padding": (0, 1, 1), "stride": (1, 2, 2)},
        {"padding": 2, "dilation": 2},
        {"padding": 1, "groups": 2},
        {"padding": "same"},
        {"bias": None},
    ],
    ids=str,
)
def test_convolutions_sent_to_onednn_compute_the_same(settings):
    torch.manual_seed(0)
    groups = settings.get("groups", 1)
    image, weight, bias = torch.randn(1, 4, 7, 8, 9), torch.randn(6, 4 // groups, 3, 3, 3), torch.randn(6)
    arguments = {"bias": bias} | settings
    plain = torch.conv3d(image, weight, **arguments)
    with forward_state(PredictOptions(device="cpu")):
        sent = torch.conv3d(image, weight, **arguments)
    torch.testing.assert_close(sent, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_choice_of_cuda_algorithms_ends_with_the_forward_pass(deterministic, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def state():
        cudnn = torch.backends.cudnn
        return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32

    before = state()
    with _cuda_algorithms(deterministic):
        assert state() == (deterministic, deterministic, not deterministic, False)
    assert state() == before


def test_names_tell_what_the_digest_cannot(monkeypatch):
    """Version, processor, its instructions and what limits them are named."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    names = environment_names(PredictOptions(device="cpu"))
    assert names["device"] == "cpu"
    assert names["torch"] == str(torch.__version__)
    assert names["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert names["processor"]
    assert names["instructions"].startswith(torch.backends.cpu.get_cpu_capability())
