"""What all tables of configuration files have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function, tuple_schema

from pipeline.geometry import Vec


@dataclass(frozen=True)
class _Three:
    """What a file says as a list of three ``number``, and what is a ``Vec`` in Python."""

    number: Any

    def __get_pydantic_core_schema__(self, source: type[Vec], handler: GetCoreSchemaHandler) -> CoreSchema:
        three = tuple_schema([handler.generate_schema(self.number)] * 3)
        return no_info_after_validator_function(Vec._make, three)


Shape = Annotated[Vec, _Three(Annotated[int, Field(ge=1)])]
Voxel = Annotated[Vec, _Three(int)]
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
