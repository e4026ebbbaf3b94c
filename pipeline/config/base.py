"""What all tables of configuration files have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
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


class Table(BaseModel):
    """A table of a configuration file: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    example: ClassVar[str] = "`petaseg init` writes an example"
    """Said to somebody whose file cannot be read."""
