"""``petaseg models``: the bundled networks."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg models")
    def models() -> None:
        """List the bundled models: what they were trained on, and how well they do."""
        from pipeline.models.spec import bundled_cards
        from workflows.display import models_table

        models_table(bundled_cards())
