"""``petaseg models`` as a user types it."""

import re
import subprocess
import sys

from pipeline.models.facts import stored_facts
from tests.runs import petaseg


def test_models_and_architectures_are_listed_with_their_numbers():
    """``petaseg models`` lists all models and architectures with parameters, field of view, patch and operations."""
    shown = petaseg("models")
    assert shown.returncode == 0, shown.stderr
    for facts in stored_facts():
        assert re.search(rf"{facts.name} +│ {facts.parameters:,} ", shown.stdout), facts.name
    assert "1,479,060" in shown.stdout
    base = r"gamma_net_3d/base +│ 1,099,901 \(747,053\) +│ all x all x all +│ 16 x 160 x 160 +│ 1,010.0"
    assert re.search(base, shown.stdout)
    assert "voxels / s" not in shown.stdout


def test_listing_loads_no_network():
    """``petaseg models`` imports neither torch nor transformers."""
    program = (
        "import atexit, sys; from workflows.cli import main; sys.argv = ['petaseg', 'models']; "
        "atexit.register(lambda: print(*{'torch', 'transformers'} & set(sys.modules), file=sys.stderr)); main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_speed_is_measured_when_asked_for():
    """Speeds appear only with ``--measure``, which measures them on this machine."""
    shown = petaseg("models", "resnet_fcn/tiny", "identity", "--measure")
    assert shown.returncode == 0, shown.stderr
    assert "voxels / s" in shown.stdout
    assert re.search(r"resnet_fcn/tiny +│ 69,412 +│ 1 x 195 x 195 +│ 1 x 256 x 256 +│ 0.7 +│ +[\d,]+ ", shown.stdout)


def test_an_unknown_name_is_refused():
    """An unknown model is an error that lists the known ones."""
    refused = petaseg("models", "residual_unet/huge")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "one of tiny, lee" in refused.stderr
