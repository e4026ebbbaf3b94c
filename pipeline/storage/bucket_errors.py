"""What the errors of obstore mean. Their texts hold whole answers of the server, which may repeat a request's headers
(a session token among them), so only the status, the error code and the server's sentence are taken from them.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from pipeline.storage.errors import RequestError

STATUS = re.compile(r"status code: (\d{3})")
CODE = re.compile(r"<Code>(\w+)</Code>")
MESSAGE = re.compile(r"<Message>([^<]{1,200})</Message>")
REASON = re.compile(r"(?:message|error): \"([^\"]{1,200})\"")
NO_KEY = re.compile(r"Could not parse path|Invalid path", re.IGNORECASE)
REPEATED = ("408", "409", "425", "429")
"""Client errors that may pass; all server errors may."""

EXPIRED = "the temporary credentials have expired or are not valid", "get new ones, then run again"
REGION = "the bucket lies in another region", "set AWS_REGION to the bucket's region"
CAUSES = {
    "InvalidAccessKeyId": ("the access key is not known there", "correct it, or AWS_ENDPOINT_URL if it is another's"),
    "SignatureDoesNotMatch": ("the secret key does not fit the access key", "correct them"),
    "ExpiredToken": EXPIRED,
    "InvalidToken": EXPIRED,
    "TokenRefreshRequired": EXPIRED,
    "RequestTimeTooSkewed": ("the clock of this machine is wrong", "set it, for example with NTP"),
    "PermanentRedirect": REGION,
    "AuthorizationHeaderMalformed": REGION,
    "IllegalLocationConstraintException": REGION,
    "InvalidBucketName": ("this is no name of a bucket", "correct it"),
}
DENIED = (
    "access denied",
    "give these credentials the right to read, write, delete and list there (without the right to list, a missing "
    "object looks like this too)",
)
FULL = ("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage")


@dataclass(frozen=True)
class Server:
    """The server that a bucket's requests go to, as messages name it."""

    name: str
    bucket: str
    signed: bool
    """False if no credentials were found."""
    keys: str
    """How credentials are given."""


def explain(error: Exception, server: Server) -> RequestError:
    """What an error of a request means, and what to do."""
    if isinstance(error, RequestError):
        return error
    text = str(error)
    status, code = _first(STATUS, text), _first(CODE, text)
    if code == "NoSuchBucket":
        return no_bucket(server)
    if code in FULL or status == "507":
        return RequestError("the store is full", "free some space there and run again", number=errno.EDQUOT)
    if code in CAUSES:
        return RequestError(*CAUSES[code])
    if status.startswith("3") or "BareRedirect" in text:
        return RequestError(*REGION)
    if status == "501":
        return RequestError(f"{server.name} cannot do this", "update it, or use another store")
    if status in ("401", "403"):
        return _refused(server)
    if type(error).__name__ == "UnauthenticatedError":
        return RequestError("the credentials cannot be used", f"renew them, or set {server.keys}")
    if status:
        return _answer(text, status, code)
    if type(error).__name__ != "GenericError" or NO_KEY.search(text):  # the request was not sent at all
        return RequestError(text.partition("\n")[0], "correct the address")
    return _silence(text, server)


def no_bucket(server: Server) -> RequestError:
    """The bucket itself is missing."""
    return RequestError(
        f"there is no bucket {server.bucket} at {server.name}", "create it, or correct its name or AWS_ENDPOINT_URL"
    )


def _refused(server: Server) -> RequestError:
    if server.signed:
        return RequestError(*DENIED, number=errno.EACCES)
    return RequestError("access denied, and no credentials were found", f"set {server.keys}", number=errno.EACCES)


def _answer(text: str, status: str, code: str) -> RequestError:
    said = ", ".join(part for part in (code, _first(MESSAGE, text)) if part)
    return RequestError(
        f"the server answered {status}" + (f" ({said})" if said else ""),
        "see what its status page or its administrator says, then run again",
        transient=status >= "500" or status in REPEATED,
    )


def _silence(text: str, server: Server) -> RequestError:
    """The error for no answer, or an incomplete one."""
    connected = "kind: Connect" not in text
    why = _first(REASON, text) or ("it took too long" if "kind: Timeout" in text else text.partition("\n")[0])
    return RequestError(
        f"{'no whole answer' if connected else 'no answer'} from {server.name} ({why})",
        "check AWS_ENDPOINT_URL and the network, then run again",
        transient=True,
        answered=connected and "kind: Timeout" not in text,
    )


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
