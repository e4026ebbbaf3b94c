"""A central Luigi scheduler: its address is checked, and that it answers, before a run is begun."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from pipeline.errors import ClusterError, ConfigError

ADDRESS = re.compile(
    r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?|https?://\[[0-9a-fA-F:]+\](:[0-9]{1,5})?/?"
)
ANSWER_SECONDS = 10
"""How long a scheduler may take to answer."""
QUESTION = "/api/is_pause_enabled?data=%7B%7D"
"""A request that changes nothing and that every Luigi scheduler answers."""
REMEDY = "start one with `luigid`, correct --luigid, or leave it out: then the stages are ordered in this process"


def check_scheduler(url: str) -> None:
    """Raise ``ConfigError`` if a URL is no address, and ``ClusterError`` if no Luigi scheduler answers there."""
    if not ADDRESS.fullmatch(url):
        raise ConfigError(f"--luigid is {url!r}; it must be a URL, like http://localhost:8082")
    try:
        with build_opener(ProxyHandler({})).open(url.rstrip("/") + QUESTION, timeout=ANSWER_SECONDS) as answer:
            said = json.loads(answer.read(10_000))
    except HTTPError as error:
        raise ClusterError(
            f"what answers at {url} is no Luigi scheduler ({error.code} {error.reason}); {REMEDY}"
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ClusterError(f"no Luigi scheduler answers at {url} ({reason}); {REMEDY}") from None
    if not isinstance(said, dict) or "response" not in said:
        raise ClusterError(f"what answers at {url} is no Luigi scheduler; {REMEDY}")


@contextmanager
def explained(url: str | None) -> Iterator[None]:
    """Turn the loss of the scheduler during a run into ``ClusterError``; completed chunks are kept."""
    from luigi.rpc import RPCError

    try:
        yield
    except RPCError as error:
        raise ClusterError(
            f"the Luigi scheduler at {url} answers no more ({error}); what is done is kept: {REMEDY}, and give the "
            "same command again"
        ) from None
