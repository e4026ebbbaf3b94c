"""Fixtures that every test may use."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path

import dask.config
import pytest
from hypothesis import Phase, settings

from tests.deploy.slurm import _slurm_cluster, slurm  # noqa: F401  (fixtures)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real EM volumes: ``PETASEG_DATA``, else ``../shared/data`` beside the project.

    The tests on real tissue cannot run without it, so a missing folder is a failure, in CI and anywhere else.
    """
    folder = Path(os.environ.get("PETASEG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.fail(f"no EM data in {folder}; set PETASEG_DATA to the folder that holds fib25_train2.h5")
    return folder


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """The folder of reference inputs, weights and outputs: ``PETASEG_FIXTURES``, else ``../shared/fixtures``.

    The tests against the papers' codes cannot run without it, so a missing folder is a failure, in CI and elsewhere.
    """
    folder = Path(os.environ.get("PETASEG_FIXTURES", ROOT.parent / "shared" / "fixtures"))
    if not folder.is_dir():
        pytest.fail(f"no reference arrays in {folder}; set PETASEG_FIXTURES to the folder that holds them")
    return folder


@pytest.fixture(autouse=True)
def dask_settings_stay_as_they_were() -> Iterator[None]:
    """A driver of a cluster configures Dask for the rest of its process; here that ends with the test."""
    before = copy.deepcopy(dask.config.config)
    yield
    dask.config.config.clear()
    dask.config.config.update(before)


settings.register_profile("petaseg", deadline=None, derandomize=True)
settings.register_profile("mutations", settings.get_profile("petaseg"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("petaseg")
