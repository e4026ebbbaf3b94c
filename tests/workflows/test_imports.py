"""What commands do not import: importing torch, numba, matplotlib or Luigi takes longer than all that they then do."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_architecture import HEAVY
from tests.workflows.test_cli import invoke, small_run

ROOT = Path(__file__).resolve().parents[2]
