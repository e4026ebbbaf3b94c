"""What all tables of configuration files have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Shape = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
Voxel = tuple[int, int, int]
Share = Annotated[float, Field(ge=0, le=1)]


class Table(BaseModel):
    """A table of a configuration file: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    example: ClassVar[str] = "`petaseg init` writes an example"
    """Said to somebody whose file cannot be read."""
