"""Where credentials come from: the environment or the usual files, read anew in every process, and kept nowhere else.

S3    environment, ~/.aws/credentials and ~/.aws/config (profiles, roles, SSO), the machine's or container's role,
      as botocore finds them; then ~/.cloudvolume/secrets/aws-secret.json; without any, requests are not signed
GCS   GOOGLE_APPLICATION_CREDENTIALS, gcloud's application default credentials, the machine's service account, as
      obstore finds them; before the last two ~/.cloudvolume/secrets/google-secret.json; without any, no signature
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obstore.store import S3Credential

GCLOUD = Path("~/.config/gcloud/application_default_credentials.json")
PRODUCT = Path("/sys/class/dmi/id/product_name")
"""The file in which Linux gives the machine's product name; Google's machines have their own."""
GOOGLE = "https://storage.googleapis.com"
TTL = timedelta(minutes=10)
"""How often temporary keys are asked for again; botocore renews them in time."""


@dataclass(frozen=True)
class S3Access:
    """What is needed to connect to an S3 store; it is never printed and never pickled."""

    provider: Callable[[], S3Credential] | None
    """Returns the current keys; ``None`` if requests are not signed."""
    region: str
    endpoint: str | None
    """A server other than Amazon's, from the environment or the profile."""

    def __repr__(self) -> str:
        return f"S3Access(signed={self.provider is not None}, region={self.region!r}, endpoint={self.endpoint!r})"


def s3_access() -> S3Access:
    """The S3 access that the environment and the usual files give now."""
    import botocore.session

    session = botocore.session.get_session()
    keys = session.get_credentials()
    secrets = {} if keys else secret_file("aws-secret.json")
    provider = partial(from_botocore, keys) if keys else partial(from_secrets, secrets) if secrets else None
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = next((os.environ[name] for name in names if os.environ.get(name)), None)
    return S3Access(
        provider=provider,
        region=region or secrets.get("AWS_DEFAULT_REGION") or "us-east-1",
        endpoint=endpoint or session.get_scoped_config().get("endpoint_url"),
    )


@dataclass(frozen=True)
class GoogleAccess:
    """What is needed to connect to Google's storage."""

    key_file: str | None
    """Key file of a service account; ``None`` if obstore is to look for credentials by itself."""
    endpoint: str
    """Google, or the server that the key file names as ``gcs_base_url``."""
    signed: bool
    """False if there are no credentials; public objects can be read without them."""


def google_access() -> GoogleAccess:
    """The service account of cloud-volume's secrets folder, unless the environment names other credentials."""
    path = secrets_folder() / "google-secret.json"
    named = bool(os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"))
    if path.is_file() and not named:
        return GoogleAccess(str(path), secret_file(path.name).get("gcs_base_url") or GOOGLE, signed=True)
    return GoogleAccess(None, GOOGLE, signed=named or GCLOUD.expanduser().is_file() or on_google())


def on_google() -> bool:
    """True on a machine of Google's, which has a service account of its own."""
    return bool(os.environ.get("GCE_METADATA_HOST")) or (
        PRODUCT.is_file() and "Google" in PRODUCT.read_text(errors="replace")
    )


def from_botocore(keys: Any) -> S3Credential:
    """The keys that botocore has now; it renews temporary ones by itself."""
    frozen = keys.get_frozen_credentials()
    return {
        "access_key_id": frozen.access_key,
        "secret_access_key": frozen.secret_key,
        "token": frozen.token,
        "expires_at": datetime.now(UTC) + TTL,
    }


def from_secrets(secrets: dict[str, str]) -> S3Credential:
    """The keys of cloud-volume's file, where the session token may be left out."""
    return {
        "access_key_id": secrets["AWS_ACCESS_KEY_ID"],
        "secret_access_key": secrets["AWS_SECRET_ACCESS_KEY"],
        "token": secrets.get("AWS_SESSION_TOKEN"),
        "expires_at": None,
    }


def secret_file(name: str) -> dict[str, str]:
    """The content of a file of cloud-volume's secrets folder; empty if there is none."""
    path = secrets_folder() / name
    return json.loads(path.read_text()) if path.is_file() else {}


def secrets_folder() -> Path:
    """Where cloud-volume keeps its secrets."""
    return Path(os.environ.get("CLOUD_VOLUME_DIR", "~/.cloudvolume")).expanduser() / "secrets"
