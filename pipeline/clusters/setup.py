"""Shell lines that a user gave for the jobs of a run (``--setup``), kept for the next submission of the same run.

They are kept in the user's home, under a digest of the run's URL, and not in the run directory: that may be writable
for others, or come from somebody else, and must not be able to execute anything.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pipeline.config.fingerprint import fingerprint
from pipeline.errors import ConfigError


def setup_file(run_url: str) -> Path:
    """The file that keeps the lines of a run."""
    return Path.home() / ".petaseg" / "setup" / f"{fingerprint(run_url)}.sh"


def remembered_setup(run_url: str) -> str:
    """The lines of the last submission of this run by this user; "" if there were none."""
    try:
        return setup_file(run_url).read_text()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setup_file(run_url)} cannot be read ({error}); give --setup again, or delete it") from None


def remember_setup(run_url: str, lines: str) -> None:
    """Keep these lines, readable for this user alone; "" forgets those of before.

    Raises ``ConfigError`` if they cannot be kept.
    """
    path = setup_file(run_url)
    try:
        if not lines.strip():
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent)  # readable for this user alone
        with os.fdopen(descriptor, "w") as file:
            file.write(lines)
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(
            f"the lines of --setup cannot be kept in {path} ({error.strerror}); make room there, or leave --setup out"
        ) from None
