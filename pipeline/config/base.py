"""What all tables of configuration files have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.formats import Format

Shape = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
Voxel = tuple[int, int, int]
Share = Annotated[float, Field(ge=0, le=1)]


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


class Table(BaseModel):
    """A table of a configuration file: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    example: ClassVar[str] = "`petaseg init` writes an example"
    """Said to somebody whose file cannot be read."""
    file_format: ClassVar[Format | None] = None
    """The format of files of this table, if petaseg writes them too."""
