"""The formats of the files that petaseg writes and reads again, each with a version.

A file says its version under ``version``; without one it is of version 1. What is newer than this petaseg knows is
refused: it is not damaged, not outdated, and its writer may be alive. Only another version changes what a field means,
so a field that a file of a known version has besides is ignored. In files that people write too (run files and cards)
it is an error, since it may be misspelt.

Not here: volumes, whose formats others define, and the parts that stages write, which count by fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import CorruptError, PetasegError

Content = TypeVar("Content")
FIELD = "version"


@dataclass(frozen=True)
class FileFormat:
    """One kind of file, in the version that this petaseg writes; it reads all versions up to that."""

    name: str
    """Its name, mostly that of the file."""
    version: int
    instead: str = "another run directory"
    """What a user can take whose petaseg is too old for the file."""

    @property
    def stamp(self) -> dict[str, int]:
        """The field that a file says its version with."""
        return {FIELD: self.version}

    def check(self, document: Mapping[str, Any], place: str, error: type[PetasegError]) -> int:
        """The version of a document that was read at ``place``; ``error`` if it is newer than this petaseg.

        Raises ``ValueError`` if it is no version, and ``TypeError`` if the document is no table: it is damaged.
        """
        if not isinstance(document, Mapping):
            raise TypeError(f"{place} holds no table")
        version = document.get(FIELD, 1)
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ValueError(f"{FIELD} is {version!r}; it must be a whole number from 1")
        if version > self.version:
            raise error(
                f"{place} was written by a newer petaseg (format {version}; this one reads up to {self.version}); "
                f"use that version, or {self.instead}"
            )
        return version

    def read(
        self,
        data: bytes,
        place: str,
        make: Callable[[Mapping[str, Any]], Content],
        error: type[PetasegError],
        *,
        damaged: str,
    ) -> Content:
        """What ``make`` makes of the JSON document of a file; ``error`` if a newer petaseg has written it.

        Raises ``CorruptError`` if it cannot be read; damaged: what the message then says to do.
        """
        try:
            document = json.loads(data)
            self.check(document, place, error)
            return make(document)
        except (ValueError, TypeError, KeyError) as problem:
            raise CorruptError(f"{place} cannot be read ({type(problem).__name__}: {problem}); {damaged}") from problem


LEASE = FileFormat("lease.json", 1)
LEDGER = FileFormat("ledger", 1)
"""Said by the first record of a log, and by ``compact.npz`` and ``inputs.npz`` beside it."""
OUTLINE = FileFormat("stages.json", 1)
RATES = FileFormat("plan.json", 1)
DRIVER = FileFormat("driver.json", 1)
ENVIRONMENT = FileFormat("environments/*.json", 1)
PRECISION = FileFormat("precisions/*.json", 1)
"""In a run directory: the precision that was faster when the run began."""
RUN_FILE = FileFormat("run.yaml", 1, "write the file anew for this one")
CARD = FileFormat("card.yaml", 1, "another model")
CHECKPOINT = FileFormat("checkpoint.ckpt", 1, "another output")
"""Of a training."""
EXTENT = FileFormat("extent.json", 1)
"""Beside the log of a stage: the layout to which its products were confined last."""
MARK = FileFormat("petaseg.json", 1)
"""Marks a run directory as one of petaseg's, and names the input whose results are in it."""
SEGMENTATION = FileFormat("segmentation.json", 1)
"""In a run directory: the threshold that ``petaseg relabel`` has applied, and what the run file said then."""
ADDED = FileFormat("added.json", 1)
"""In a run directory: the tables that ``petaseg add`` has added to the configuration."""
EDITS = FileFormat("edits.json", 1)
"""In a run directory: the corrections of its neurons, in their order."""
INGEST = FileFormat("ingest.json", 1, "another target")
"""Beside a volume that is being copied."""
SELF_TRAINING = FileFormat("self-train.json", 1, "another --output")
"""In the folder of a self-training: its settings, and beside each mask how much of it is sure (``sure.json``)."""
VIEW = FileFormat("view.json", 1, "delete it, and look at the run anew")
"""In a run directory: where the viewer looked, and what it showed."""
SUGGESTIONS = FileFormat("suggestions.json", 1, "another --output")
"""The boxes that ``petaseg suggest`` has chosen, and a digest of what it chose them by."""
SUSPECTS_MODEL = FileFormat("suspects.json", 1, "calibrate again")
"""The numbers by which ``petaseg suspects`` tells how probably a place is wrong."""
