"""The folders of pods, and the paths that they cannot open: a pod has its claims, the network, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pipeline.config.cluster import ClusterTable
from pipeline.config.kubernetes import Claim
from pipeline.errors import ConfigError
from pipeline.storage import local_path

DATA_FOLDER = "/data"
"""Where ``cluster.claim`` is mounted in every pod."""
REMOTE = ("s3", "gs", "http", "https")


def mounts(cluster: ClusterTable) -> tuple[Claim, ...]:
    """All claims of a pod; ``ConfigError`` if two are mounted at the same folder."""
    first = () if cluster.claim is None else (Claim.model_construct(claim=cluster.claim, path=DATA_FOLDER),)
    found = (*first, *cluster.kubernetes.claims)
    paths = [each.path for each in found]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"two claims are mounted at {twice}, and a folder holds one (cluster.claim is at {DATA_FOLDER}); give each "
            "of cluster.kubernetes.claims a path of its own"
        )
    return found


def check_reachable(places: Sequence[str], results: tuple[str, str], cluster: ClusterTable) -> None:
    """Raise ``ConfigError`` if a run or training reads or writes what its pods do not have.

    results: the key and the path of the folder into which it writes.
    """
    claims = mounts(cluster)
    lost = [place for place in places if not _is_reachable(place, claims)]
    if lost:
        raise ConfigError(
            f"{', '.join(lost)} cannot be opened in a pod, which has no folder of this machine; {_remedy(claims)}, or "
            "use a bucket (s3://, gs://)"
        )
    _check_writable(*results, claims)


def _remedy(claims: Sequence[Claim]) -> str:
    if not claims:
        return (
            f"name the claim that holds the data in cluster.claim (it is mounted at {DATA_FOLDER}) or, with another "
            "path, in cluster.kubernetes.claims"
        )
    named = " and ".join(f"the claim {each.claim} is mounted at {each.path}" for each in claims)
    return f"{named}: put the data there"


def _check_writable(key: str, place: str, claims: Sequence[Claim]) -> None:
    claim = _claim_of(place, claims)
    if claim is not None and claim.read_only:
        raise ConfigError(
            f"{key} is {place}, where the claim {claim.claim} is mounted with read_only; pods write the "
            "results there: choose another folder, or leave read_only out"
        )


def _is_reachable(place: str, claims: Sequence[Claim]) -> bool:
    scheme, marker, rest = place.partition("://")
    if marker and scheme != "file":
        return scheme in REMOTE or ("/" in rest and _is_reachable(rest, claims))  # precomputed://s3://bucket/layer
    return _claim_of(place, claims) is not None


def _claim_of(place: str, claims: Sequence[Claim]) -> Claim | None:
    """The claim that holds a local path; the innermost one, if one is mounted inside another."""
    path = local_path(place) or Path(place)
    if ".." in path.parts:
        return None
    holding = [each for each in claims if PurePosixPath(path).is_relative_to(each.path)]
    return max(holding, key=lambda each: len(PurePosixPath(each.path).parts), default=None)
