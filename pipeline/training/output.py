"""The output folder of a training: a model that lies there and that no training wrote is never replaced."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.formats import CHECKPOINT
from pipeline.models.spec import CARD_FILE, WEIGHTS_FILE

LOG = "log.jsonl"
"""The log of the validations. A training writes it before its first model, so a model beside it is a training's."""


def refuse_other_model(folder: Path | str) -> None:
    """Raise ``ConfigError`` if the folder holds a model that no training in this folder has written."""
    place = Path(folder)
    found = next((place / name for name in (CARD_FILE, WEIGHTS_FILE) if (place / name).exists()), None)
    if found is not None and not any((place / name).is_file() for name in (LOG, CHECKPOINT.name)):
        raise ConfigError(
            f"output is {place}, and {found} is there, which no training in this folder has written (it has no {LOG}); "
            "this training would replace it: name another output, or move that model away"
        )
