"""Values of a file that a registry decides: the name of a row, or a table whose class is that of a row.

    executor: Annotated[str, KeyOf("pipeline.execution:EXECUTORS")]

    LOSSES = {"dice": "pipeline.training.losses:Dice", ...}
    AnyLoss = Annotated[LossSpec, OneOf(LOSSES, "kind")]        # {kind: dice, smooth: 1} becomes a Dice

The registry is asked when a file is read, so that a row is all that a new part needs. The class of a row of ``LOSSES``
is a ``Table`` whose key can only be the row's name: ``kind: Literal["dice"] = "dice"``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Union

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from pipeline.config.base import Table
from pipeline.registry import load


@dataclass(frozen=True)
class KeyOf:
    """Annotates a text: the name of a row."""

    table: str
    """``module:TABLE`` of the registry, which may be above this package: it is loaded when a file is read."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "enum": list(load(self.table))}

    def _checked(self, name: str) -> str:
        names = [repr(each) for each in load(self.table)]
        if repr(name) not in names:
            raise PydanticKnownError("literal_error", {"expected": " or ".join((", ".join(names[:-1]), names[-1]))})
        return name


@dataclass(frozen=True, eq=False)
class OneOf:
    """Annotates a field: a table of one of the classes in a registry, as it is when a file is read."""

    rows: Mapping[str, str]
    """Name -> "module:class"."""
    key: str
    """The key that says which."""

    def classes(self) -> tuple[type[Table], ...]:
        """The classes of all rows; one with two names stands there once."""
        return tuple(dict.fromkeys(load(path) for path in self.rows.values()))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written_by_its_class = core_schema.any_schema()
        return core_schema.with_info_before_validator_function(self._checked, written_by_its_class)

    def _checked(self, value: Any, info: ValidationInfo) -> Any:
        union = _union(self.classes(), self.key)
        return union.validate_json(json.dumps(value)) if info.mode == "json" else union.validate_python(value)


@lru_cache
def _union(classes: tuple[type[Table], ...], key: str) -> TypeAdapter[Any]:
    union: Any = Annotated[Union[classes], Field(discriminator=key)]  # noqa: UP007
    return TypeAdapter(union)
