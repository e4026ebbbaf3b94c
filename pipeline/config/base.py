"""What all tables of configuration files have in common: the table itself, and the types of its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function, tuple_schema

from pipeline.geometry import Vec

Count = Annotated[int, Field(ge=1)]
"""How many there are of something that must be there."""
CountOrZero = Annotated[int, Field(ge=0)]
"""How many there are of something that may be missing."""
Positive = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
"""A positive number, or 0 for nothing of it."""
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class _Three:
    """What a file says as a list of three ``number``, and what is a ``Vec`` in Python."""

    number: Any

    def __get_pydantic_core_schema__(self, source: type[Vec], handler: GetCoreSchemaHandler) -> CoreSchema:
        three = tuple_schema([handler.generate_schema(self.number)] * 3)
        return no_info_after_validator_function(Vec._make, three)


Shape = Annotated[Vec, _Three(Count)]
"""Voxels along z, y and x."""
Voxel = Annotated[Vec, _Three(int)]
"""A position, a distance or an offset in voxels: z, y, x."""
STORAGE_CHUNK: Shape = Vec(64, 64, 64)
"""Voxels of one stored chunk, where nobody chooses others."""


@dataclass(frozen=True)
class PathMarker:
    """Marks the texts of a key as paths or URLs, so that relative ones can be counted from a folder.

    format: what the JSON schema and the page of all keys call such a text.
    """

    format: str
    may_be_name: bool = False
    """True if a text without a slash, which does not end in .yaml, is a name and no path."""

    def is_path(self, text: str) -> bool:
        """False for a name."""
        return not self.may_be_name or "/" in text or text.endswith((".yaml", ".yml"))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "format": self.format}


DataPath = Annotated[str, PathMarker("path or URL")]
"""A file, folder or volume. In a run file, relative paths count from its folder."""
ModelName = Annotated[str, PathMarker("name, path or URL", may_be_name=True)]
"""The name of a bundled model, or the place of a model's card or folder."""


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
