"""Commands that messages print: each can be pasted into a shell as it stands, whatever names the user has chosen."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def command(verb: str, place: str, overrides: Sequence[str] = (), *more: str) -> str:
    """``petaseg VERB PLACE --set KEY=VALUE ... MORE ...``, each word quoted for a shell where it needs it.

    place: a path or URL. more: further options, as a shell would hand them over.
    """
    sets = [word for override in overrides for word in ("--set", override)]
    return shlex.join(["petaseg", verb, f"./{place}" if place.startswith("-") else place, *sets, *more])


def continuation(place: str, overrides: Sequence[str] = (), cluster: str | None = None) -> str:
    """The command that continues a run: on this machine, or as jobs of the cluster on which its workers are."""
    if cluster is None:
        return command("run", place, overrides)
    return command("submit", place, overrides, "--on", cluster)
