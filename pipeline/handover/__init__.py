"""Handing a run on: its supervoxels, contacts and merge tree as files for other programs, streamed from what is stored.

``source`` reads a run chunk by chunk, ``sorting`` orders rows on disk, ``tables`` joins both into tables in the order
of ids; each format is one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.registry import find, load

if TYPE_CHECKING:
    from pipeline.runs.run import Run

HANDOVERS: dict[str, str] = {
    "parquet": "pipeline.handover.parquet:write_parquet_tables",
    "pychunkedgraph": "pipeline.handover.pychunkedgraph:write_pychunkedgraph",
    "webknossos": "pipeline.handover.webknossos:write_webknossos",
}
"""What ``--to`` takes beside the formats of volumes: a function of a ``Source``, a new folder and a ``Tally``."""


def hand_over(
    run: Run,
    output: str,
    to: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> None:
    """Write a finished run to a new folder for another program; it appears when it is complete.

    to: a key of ``HANDOVERS``. options: what that format takes besides.

    Raises ``ConfigError`` if the run has no finished supervoxels and merge tree, if the output exists or is not on this
    machine, or if the format cannot hold the run.
    """
    from pipeline.handover.source import Source
    from pipeline.volumes.export import appearing

    writer = load(find(HANDOVERS, to, "--to is"))
    source = Source.of(run, to)
    with appearing(output) as place:
        place.mkdir()
        writer(source, place, on_progress, **options)
