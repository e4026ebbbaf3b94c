"""The list of suspects as tables of the run directory.

<run>/tables/suspects.parquet      a row for each place, the most minutes first; ``COLUMNS`` says what they mean
<run>/tables/suspects.csv          the same as text, if asked for
<run>/tables/suspects.fingerprint  the segments that the list was made from
<run>/tables/suspects.json         the model that was calibrated on this run, if one was
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import Vec
from pipeline.runs.hints import command
from pipeline.runs.run import Run
from pipeline.shapes.measure_tables import AXES, read_table, table_of, to_parquet
from pipeline.storage import ObjectStore
from pipeline.suspects.candidates import KINDS
from pipeline.suspects.model import Model
from pipeline.suspects.ranking import FEATURES, Ranked, state_of

TABLE, TEXT, MODEL = "tables/suspects.parquet", "tables/suspects.csv", "tables/suspects.json"
STATE = "tables/suspects.fingerprint"
"""The fingerprint of the segments that the table was made from; the table itself is the same in any chunks."""
ABOUT = {name: text for kind in KINDS.values() for name, text in kind.features.items()}
COLUMNS = {
    "rank": "from 1, the most minutes first",
    "kind": "merger: two neurons may be one segment here; split: one neuron may be two segments; "
    "end: a skeleton ends here, and the neuron may go on in the other segment; crossing: two straight lines of a "
    "skeleton cross here, and may be two neurons; nuclei: the join that brought two nuclei into one neuron",
    **{f"{axis}": f"voxel to look at along {axis}" for axis in AXES},
    **{f"{axis}_nm": f"the centre of this voxel along {axis}, in nanometres" for axis in AXES},
    "supervoxel_a": "one of the two supervoxels that touch there",
    "supervoxel_b": "the other one, the larger id",
    "segment_a": "the segment of supervoxel_a",
    "segment_b": "that of supervoxel_b; of a merger the same",
    "smaller_voxels": "voxels of the smaller side: of a merger, if it is cut here",
    "larger_voxels": "voxels of the larger side",
    "probability": "that it is wrong",
    "minutes": "minutes of proofreading that looking there is expected to save",
    **{f"feature_{name}": ABOUT[name] for name in FEATURES},
}
"""Columns of the table, and what they mean."""


@dataclass(frozen=True)
class Suspect:
    """One row."""

    rank: int
    kind: str
    place: Vec
    """The voxel to look at."""
    segments: tuple[int, int]
    supervoxels: tuple[int, int]
    smaller_voxels: int
    probability: float
    minutes: float

    @property
    def labels(self) -> tuple[int, ...]:
        """The segments without repetition."""
        return tuple(dict.fromkeys(self.segments))


def columns_of(ranked: Ranked, places: np.ndarray, resolution_nm: tuple[float, float, float]) -> list[np.ndarray]:
    """The columns of the table, in the order of ``COLUMNS``."""
    return [
        np.arange(1, len(ranked) + 1),
        ranked.kind,
        *places.T,
        *((places + 0.5) * np.array(resolution_nm)).T,
        *(*ranked.supervoxels.T, *ranked.segments.T, *ranked.sides.T),
        *(ranked.probability, ranked.minutes, *ranked.features.T),
    ]


def write_list(run: Run, ranked: Ranked, places: np.ndarray, *, text: bool = False) -> None:
    """Store the table, and with ``text`` as CSV too; under the driver's lease."""
    columns = columns_of(ranked, places, run.layout.resolution_nm)
    store = ObjectStore(run.home)
    for key in (STATE, TEXT):
        if store.exists(key):
            store.delete(key)
    store.put(TABLE, to_parquet([table_of(COLUMNS, columns)], COLUMNS), durable=True)
    if text:
        store.put(TEXT, _as_text(columns))
    store.put(STATE, state_of(run).encode(), durable=True)


def _as_text(columns: list[np.ndarray]) -> bytes:
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
    return target.getvalue().encode()


def read_list(run: Run) -> list[Suspect]:
    """The stored list; an empty one if there is none, or if the segments have changed since."""
    store = ObjectStore(run.home)
    if run.kind.name != "neurons" or store.get_or_none(STATE) != state_of(run).encode():
        return []
    return [_row(row) for row in _rows(read_table(store.get(TABLE)))]


def look_hint(run: Run, rank: int) -> str:
    """The command that opens the viewer at a place of the list."""
    return command("view", run.home, (), "--suspect", str(rank))


def suspect_at(run: Run, rank: int) -> Suspect:
    """The place of a rank; ``ConfigError`` if the list does not have it."""
    suspects = read_list(run)
    if not 1 <= rank <= len(suspects):
        raise ConfigError(
            f"suspect {rank} of {len(suspects)} in the list of {run.url}; ranks count from 1, and a list is made by: "
            f"{run.hint('suspects')}"
        )
    return suspects[rank - 1]


def _rows(table: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    names = list(table)
    return [dict(zip(names, row, strict=True)) for row in zip(*(table[name].tolist() for name in names), strict=True)]


def _row(row: dict[str, Any]) -> Suspect:
    return Suspect(
        rank=row["rank"],
        kind=row["kind"],
        place=Vec(row["z"], row["y"], row["x"]),
        segments=(row["segment_a"], row["segment_b"]),
        supervoxels=(row["supervoxel_a"], row["supervoxel_b"]),
        smaller_voxels=row["smaller_voxels"],
        probability=row["probability"],
        minutes=row["minutes"],
    )


def model_of(run: Run, place: str | None) -> Model:
    """The model at a place; else the one that was calibrated on this run; else the bundled one."""
    if place is not None:
        return Model.load(place)
    data = ObjectStore(run.home).get_or_none(MODEL)
    return Model.bundled() if data is None else Model.parse(data, f"{run.home}/{MODEL}").completed()


def keep_model(run: Run, model: Model) -> None:
    """Store the model that was calibrated on a run; under the driver's lease."""
    ObjectStore(run.home).put(MODEL, model.to_bytes(), durable=True)
