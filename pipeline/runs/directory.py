"""The run directory: whose it is, and of which input its results are.

    <run>/petaseg.json    marks the directory as one of petaseg's, and names the input; written before all else

A directory without it that holds anything is somebody's, and no run is made there. A directory with the results of
another input is refused, and emptied of them with ``--overwrite``. Whatever else somebody keeps in it stays.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError, CorruptError, LeaseError, LedgerError
from pipeline.formats import MARK
from pipeline.runs.chain import STAGES
from pipeline.runs.hints import command
from pipeline.runs.lease import KEY as LEASE_KEY
from pipeline.runs.lease import read_lease
from pipeline.runs.origin import WRITTEN
from pipeline.runs.outline import RunOutline, read_outline
from pipeline.stages.evaluate_segmentation import EvaluateSegmentation
from pipeline.stages.extent import extent_key, recorded_layout
from pipeline.stages.layout import BESIDE
from pipeline.stages.setup import Inputs
from pipeline.storage import ObjectStore, local_path
from pipeline.volumes.location import detect_format, parse_location
from pipeline.volumes.places import real
from pipeline.volumes.removal import object_names

KEY = "petaseg.json"
RECORDS = re.compile(r"ledger/\w+/(log(-\d+)?\.jsonl|compact\.npz|inputs\.npz|extent\.json)")
"""What tells which chunks are done: it is deleted first."""
RESULTS = re.compile(
    r"parts/\w+/(L\d+_)?\d+_\d+_\d+|(environments|precisions)/[0-9a-f]+\.json"
    r"|report/((overview|sweep|iou)\.png|(scores|summary)\.json|report\.html)"
    r"|beside/[\w-]+/((ledger|parts)/\w+/\S+|(meshes|skeletons)/\S+|tables/\w+\.parquet|run\.yaml|(stages|summary|edits)\.json|overview\.png)"
    r"|(plan|stages|segmentation|added|edits)\.json|(meshes|skeletons)/(info|[0-9a-f]+\.shard)|tables/(neurons|objects|contacts|organelles|skeletons)\.parquet"
)
"""The results of a run, beside its volumes."""
DOCUMENTS = ("plan", "segmentation", "added", "edits")
"""Those that lie in the run directory itself."""
LOGS = ("petaseg.log", "petaseg.jsonl")
"""Logs may be there before a run, as links to another disk: a run only appends to them."""
REMEDY = "give --overwrite to petaseg run, which deletes the results of that run, or choose another run_directory"


class OtherInputError(ConfigError):
    """A run directory holds the results of another input."""


@dataclass(frozen=True)
class InputMark:
    """The input whose results a run directory holds."""

    url: str
    fingerprint: str

    @classmethod
    def of(cls, inputs: Inputs) -> InputMark:
        """The input of a run."""
        return cls(inputs.url, inputs.fingerprint)

    @classmethod
    def written(cls, document: Mapping[str, Any]) -> InputMark:
        """The mark that a document holds."""
        return cls(document["input"], document["fingerprint"])

    def same_as(self, other: InputMark) -> bool:
        """True for the same voxels in another place, and for another version of the voxels in one place."""
        return self.url == other.url or self.fingerprint == other.fingerprint


def check_directory(outline: RunOutline, inputs: Inputs, *, overwrite: bool = False) -> None:
    """``ConfigError`` unless a run may write to its directory (``OtherInputError`` for another input's results).

    Nothing is written.

    overwrite: whether the results of another input may be replaced.
    """
    mine, found = InputMark.of(inputs), _mark_in(outline, InputMark.of(inputs))
    if found is None:
        _refuse_occupied(outline.store)
    elif not overwrite and not found.same_as(mine):
        raise OtherInputError(
            f"{outline.url} holds the results of another input, {found.url}; this run reads {mine.url} and would "
            f"replace them: {REMEDY}"
        )


def claim_directory(outline: RunOutline, inputs: Inputs, *, overwrite: bool = False) -> None:
    """Mark a directory as this run's, by its driver; results of another input are deleted first, if they may be."""
    check_directory(outline, inputs, overwrite=overwrite)
    mine, found = InputMark.of(inputs), _mark_in(outline, InputMark.of(inputs))
    if found is not None and not found.same_as(mine):
        discard(outline.store)
    if read_mark(outline.store) != mine:
        outline.store.put(KEY, json.dumps({**MARK.stamp, "input": mine.url, "fingerprint": mine.fingerprint}).encode())


def discard(store: ObjectStore) -> None:
    """Delete the results in a run directory, and nothing else; after an interruption it may be repeated.

    Raises ``VolumeError``, and deletes nothing, if one of its volumes was not made by petaseg.
    """
    from pipeline.volumes.ome_zarr import ZarrVolume  # it imports zarr

    beside = {f"{key.split('/')[1]}.zarr" for key in store.list(f"{BESIDE}/") if key.endswith("/stages.json")}
    volumes = [parse_location(f"{store.url}/{name}") for name in sorted(WRITTEN | beside | _outlined(store))]
    for volume in volumes:
        ZarrVolume.may_remove(volume)
    folders = (f"{BESIDE}/", "parts/", "meshes/", "skeletons/", "tables/", "environments/", "precisions/", "report/")
    documents = (f"{name}.json" for name in DOCUMENTS)
    for pattern, places in ((RECORDS, ("ledger/",)), (RESULTS, (*folders, *documents))):
        for key in (key for folder in places for key in store.list(folder) if pattern.fullmatch(key)):
            store.delete(key)
    for volume in volumes:
        ZarrVolume.remove(volume)


def _outlined(store: ObjectStore) -> set[str]:
    """Names of the volumes in the outline of a run directory, if it can be read."""
    try:
        outline = read_outline(store)
    except CorruptError:
        return set()
    return set() if outline is None else outline.volumes


def forget_left_out(store: ObjectStore, stages: Collection[str], layout: str) -> None:
    """Delete what stages that the run leaves out have stored under another layout than ``layout``; may be repeated.

    Scores of another region would otherwise stay beside the labels of this one.
    """
    for kind in STAGES:
        if kind.name in stages or recorded_layout(store, kind.name) in (None, layout):
            continue
        records = [key for key in store.list(f"ledger/{kind.name}/") if key != extent_key(kind.name)]
        scores = ["report/scores.json", "report/sweep.png", "report/iou.png"] if kind is EvaluateSegmentation else []
        for key in (*records, *store.list(f"parts/{kind.name}/"), *scores, extent_key(kind.name)):
            if RECORDS.fullmatch(key) or RESULTS.fullmatch(key):
                store.delete(key)


def directory_of(folder: str, written: str) -> str:
    """The run directory of the ``run.yaml`` in a folder (absolute, or a URL), which names the directory ``written``.

    It is the run directory in which the file lies, if it lies in one. So one that was renamed or copied is used where
    it is, and the place that it had before is left alone.
    """
    start, is_beside, _ = folder.rpartition(f"/{BESIDE}/")
    places = (folder, start) if is_beside else (folder,)
    moved = (place for place in places if real(place) != real(written) and read_mark(ObjectStore(place)) is not None)
    return next(moved, written)


def read_mark(store: ObjectStore) -> InputMark | None:
    """The mark of a run directory; ``None`` if it has none.

    Raises ``LedgerError`` if a newer petaseg has written it, ``CorruptError`` if it cannot be read.
    """
    data = store.get_or_none(KEY)
    if data is None:
        return None
    away = "delete it if petaseg wrote it, or choose another run_directory"
    return MARK.read(data, f"{store.url}/{KEY}", InputMark.written, LedgerError, damaged=away)


def _mark_in(outline: RunOutline, mine: InputMark) -> InputMark | None:
    """The mark of a directory; that of an earlier petaseg, which wrote none, follows from its outline."""
    mark = read_mark(outline.store)
    if mark is not None:
        return mark
    try:
        before = read_outline(outline.store)
    except CorruptError:  # of a run, if there are records; then its run file is written anew
        return mine if any(map(RECORDS.fullmatch, outline.store.list("ledger/"))) else None
    if before is None:
        return None
    shared = {stage.fingerprint for stage in before.stages} & {stage.fingerprint for stage in outline.stages}
    source = before.config.input.source
    return mine if shared else InputMark(source, "")


def _refuse_occupied(store: ObjectStore) -> None:
    path = store.local_path
    if path is not None and os.path.lexists(path) and not path.is_dir():
        raise ConfigError(f"run_directory {store.url} is no folder; choose another one, new or empty")
    foreign = next((name for name in object_names(store) if name not in LOGS and not _is_lease(store, name)), None)
    if foreign is not None:
        raise ConfigError(
            f"run_directory {store.url} holds files that petaseg did not write ({foreign}), and a run would write "
            "among them; choose a new or empty folder for it"
        )


def _is_lease(store: ObjectStore, name: str) -> bool:
    """True for the lease of a driver that died before it wrote the mark."""
    try:
        lease = read_lease(store) if name == LEASE_KEY else None
    except LeaseError:
        return False
    return lease is not None and not lease.damaged


def refuse_volume(place: str) -> None:
    """``ConfigError`` if a volume on this machine was named where a run is meant."""
    local = local_path(place)
    kind = detect_format(parse_location(place)) if local is not None and local.is_dir() else None
    if kind is not None:
        raise ConfigError(
            f"{place} is a volume ({kind}); name a run file or a run directory "
            f"(`{command('init', 'run.yaml', (), '--image', place)}` writes a run file)"
        )
