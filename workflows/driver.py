"""What ``petaseg run``, ``relabel`` and ``demo`` share: a run with its progress on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.session import Session, segment
from workflows.terminal.progress import ChunkProgress
from workflows.terminal.tables import progress_console


def run_with_progress(
    config: str,
    overrides: Sequence[str] = (),
    *,
    quiet: bool = False,
    scheduler_url: str | None = None,
    only_after: str | None = None,
    cluster: str | None = None,
) -> Session:
    """Run the chain with a progress line a stage; see ``segment``."""

    def announce(text: str) -> None:
        progress_console.print(text, highlight=False, soft_wrap=True)

    with ChunkProgress(progress_console, disable=quiet) as progress:
        return segment(
            config,
            overrides,
            listener=progress,
            announce=announce,
            scheduler_url=scheduler_url,
            only_after=only_after,
            cluster=cluster,
        )
