"""Folders for results, and files that are written as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError, StorageError


def make_folder(folder: Path | str, key: str) -> Path:
    """The folder that a setting names; it is made if it is missing. ``ConfigError`` if it cannot be made."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"{key} is {folder}; no folder can be made there ({why}): name another") from None
    return Path(folder)


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """A temporary file beside ``path`` to write into; it replaces ``path`` if the block succeeds.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{target}: {error.strerror or error}; results need a folder with room that may be written; choose another"
        ) from error
