"""The paths of a run that its pods cannot open: a pod has a claim at ``/data`` and the network, and no other folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from pipeline.config.paths import with_paths
from pipeline.config.run_file import RunConfig
from pipeline.errors import ConfigError
from pipeline.storage import local_path

DATA_FOLDER = "/data"
"""Where ``cluster.claim`` is mounted in every pod."""
REMOTE = ("s3", "gs", "http", "https")


def check_reachable(config: RunConfig) -> None:
    """Raise ``ConfigError`` if the run reads or writes what its pods do not have."""
    places: list[str] = []
    with_paths(config, lambda path: places.append(path) or path)  # type: ignore[func-returns-value]
    lost = [place for place in places if not _is_reachable(place, bool(config.cluster.claim))]
    if not lost:
        return
    remedy = (
        f"the claim {config.cluster.claim} is mounted at {DATA_FOLDER}: put the data there"
        if config.cluster.claim
        else f"name the claim that holds the data in cluster.claim (it is mounted at {DATA_FOLDER})"
    )
    raise ConfigError(
        f"{', '.join(lost)} cannot be opened in a pod, which has no folder of this machine; {remedy}, or use a bucket "
        "(s3://, gs://)"
    )


def _is_reachable(place: str, has_claim: bool) -> bool:
    scheme, marker, rest = place.partition("://")
    if marker and scheme != "file":
        return scheme in REMOTE or ("/" in rest and _is_reachable(rest, has_claim))  # precomputed://s3://bucket/layer
    path = local_path(place) or Path(place)
    return has_claim and ".." not in path.parts and PurePosixPath(path).is_relative_to(DATA_FOLDER)
