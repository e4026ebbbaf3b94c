"""Where something listens: host:port in a run file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator


def check_address(value: object) -> object:
    """The same value; ``ValueError`` unless it is host:port."""
    host, _, port = str(value).rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError(
            f"the address is {value}; it must be host:port, like 127.0.0.1:9095 for this machine only, or 0.0.0.0:9095 "
            "for everybody on the network"
        )
    return value


Address = Annotated[str, BeforeValidator(check_address)]
"""host:port to listen on."""
