"""What kind of file a table of keys is: a run file, a training file, or a model's card.

Three kinds of YAML files lie side by side in a user's folder. A command that is given another kind than it reads says
so, and which command reads it, instead of listing dozens of unknown keys.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class FileKind:
    """One kind of file that people write or are given."""

    name: str
    """What messages call it."""
    marks: frozenset[str]
    """Keys at the top of the file that only this kind has."""
    remedy: str
    """The command that reads it; ``{file}`` is its place."""


KINDS = {
    "RunConfig": FileKind("a run file", frozenset({"run_directory", "input", "supervoxels"}), "petaseg run {file}"),
    "TrainConfig": FileKind(
        "a training file", frozenset({"output", "volumes", "synthetic", "validation", "steps"}), "petaseg train {file}"
    ),
    "ModelCard": FileKind(
        "the card of a model",
        frozenset({"sha256", "weights", "resolution_nm"}),
        "petaseg init run.yaml --image IMAGE --model {file}",
    ),
}
"""Name of the class that a file is read into -> its kind."""


def kind_of(keys: Collection[str]) -> str | None:
    """The kind of which a file has the most marks, a key of ``KINDS``; ``None`` if it has none, or two as many."""
    counts = {name: len(kind.marks & set(keys)) for name, kind in KINDS.items()}
    most = max(counts.values())
    found = [name for name, count in counts.items() if count == most > 0]
    return found[0] if len(found) == 1 else None


def refuse_other_kind(keys: Collection[str], wanted: str, source: str) -> None:
    """Raise ``ConfigError`` if the keys of a file are those of another kind than ``wanted``, a key of ``KINDS``.

    source: the place of the file, a path or URL.
    """
    if wanted not in KINDS or KINDS[wanted].marks & set(keys):
        return
    for kind in KINDS.values():
        if len(kind.marks & set(keys)) > 1:
            command = kind.remedy.format(file=shlex.quote(source))
            raise ConfigError(f"{source} is {kind.name}; this command reads {KINDS[wanted].name}: {command}")
