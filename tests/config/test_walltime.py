"""Walltimes in every form that SLURM knows."""

from __future__ import annotations

import pytest

from pipeline.config.cluster import seconds_of
from pipeline.config.reading import read_config
from pipeline.errors import ConfigError

HEAD = "run_directory: r\ninput: {image: i}\ncluster: {workers: {walltime: %s}}\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("2:30", 150),
        ("4:00:00", 14400),
        ("04:00:00", 14400),
        ("12:00:00", 43200),
        ("168:00:00", 604800),
        ("2-12", 216000),
        ("1-12:00", 129600),
        ("1-01:30:05", 91805),
        ("0-1", 3600),
    ],
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_walltime_means_what_it_means_for_slurm(text: str, seconds: int, quote: str) -> None:
    """A walltime is taken with and without quotes, and stays as it was written."""
    config = read_config(HEAD % f"{quote}{text}{quote}", "run.yaml")
    assert config.cluster.workers.walltime == text
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("0", "0:00:00", "0:59", "00-00:00:00", "99:99:99", "1:60:00", "1-24", "1-1:60", "1:2:3:4", "4h", "-1", "1.5"),
        *("UNLIMITED", "INFINITE", "true", "1-", "-", ":", "4:00:00 ", "\u0664:\u0660\u0660:\u0660\u0660", "9999-00"),
        *("1" * 18, "4000-00", '"1:00:00\\n"', "'1:00:00; id'", "[4, 0, 0]", "null"),
    ],
)
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    """No limit, less than a minute, impossible minutes, other scripts and other words are refused."""
    quoted = text if text.startswith(("'", '"', "[", "null", "true", "1.5")) else f'"{text}"'
    with pytest.raises(ConfigError, match=r"cluster\.workers\.walltime"):
        read_config(HEAD % quoted, "run.yaml")
