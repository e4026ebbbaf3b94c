"""``petaseg models``: the bundled networks and all architectures, in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.models.facts import Facts


NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Bundled models, cards, or architecture/size; all bundled models and sizes if left out."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg models fib25-tiny residual_unet/lee --measure")
    def models(
        names: NamesArgument = None,
        measure: bool = typer.Option(
            False, "--measure", help="Also measure voxels per second on this machine (CPU); minutes for large networks."
        ),
    ) -> None:
        """List models and architectures: parameters, receptive field, patch, work per voxel, training and scores."""
        from pipeline.models.facts import stored_facts
        from pipeline.models.spec import bundled_cards
        from workflows.terminal.tables import facts_table, models_table

        facts = stored_facts()
        for line in _uses(names or []):
            typer.echo(line)
        if names or measure:
            facts = _asked_for(names or [each.name for each in facts], measure)
        if not names:
            models_table(bundled_cards())
        facts_table(facts)


def _uses(names: list[str]) -> Iterator[str]:
    """For each model among the names, what a run can make of it."""
    from pipeline.models.facts import subject
    from pipeline.models.heads import heads_of, uses

    for name in names:
        card = subject(name).card
        if card is not None:
            yield f"{card.name}: a run can make of it: {uses(heads_of(card))}"


def _asked_for(names: list[str], measure: bool) -> list[Facts]:
    """The facts of the named networks, stored ones if possible, with the speed of this machine if ``measure``."""
    from pipeline.models.facts import compute, stored_facts, subject, with_speed
    from workflows.terminal.tables import bar

    stored, found = {facts.name: facts for facts in stored_facts()}, []
    with bar("measure") as advance:
        for done, name in enumerate(names):
            advance(done, len(names))
            facts = stored.get(name) or compute(subject(name))
            found.append(with_speed(facts, subject(name)) if measure else facts)
        advance(len(names), len(names))
    return found
