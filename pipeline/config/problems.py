"""Error messages for a configuration file in its own terms: place, value, rule and remedy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from pipeline.config.base import SMALLEST, Table
from pipeline.config.registered import OneOf

Problem = Any
"""A line of ``ValidationError.errors()``: type, loc, msg, input and ctx."""

LIST = "it must be a list, such as [64, 64, 64]"
TABLE = "it must be a table: lines of key: value, indented below it, or {{key: value}}"
RULES = {
    "tuple_type": LIST,
    "list_type": LIST,
    "dict_type": TABLE,
    "model_type": TABLE,
    "model_attributes_type": TABLE,
    "too_long": "it must have at most {max_length} values, not {actual_length}",
}
"""Type of a problem -> the rule, where pydantic's own words are those of a programmer."""
POSITIVE = "input should be greater than 0"
REMEDIES = {
    "string_type": "; put it in quotes",
    "bool_type": "; write true or false",
    "int_type": "; write a whole number without quotes",
    "float_type": "; write a number without quotes",
}
"""Type of a problem -> what to do, where the rule alone does not say it."""


def explained(error: ValidationError, model: type[Table]) -> list[str]:
    """One line for each problem; a list that is too short only because items were refused is not another problem."""
    found = error.errors(include_url=False)
    places = [problem["loc"] for problem in found]
    return [
        explain(problem, model)
        for problem in found
        if not (problem["type"] == "too_short" and any(_inside(place, problem["loc"]) for place in places))
    ]


def explain(problem: Problem, model: type[Table]) -> str:
    """The line of one problem."""
    path, tables = walk(model, problem["loc"])
    where = ".".join(str(part) for part in path) or "the file as a whole"
    rule = POSITIVE if _is_not_positive(problem) else RULES.get(problem["type"])
    message = rule.format(**problem.get("ctx", {})) if rule else problem["msg"].removeprefix("Value error, ")
    message = f"{message[0].lower()}{message[1:]}"
    match problem["type"]:
        case "extra_forbidden":
            known = [key for table in tables for key in table.model_fields]
            return f"{where}: unknown key" + (nearest(str(path[-1]), known) or f"; known keys are {', '.join(known)}")
        case "union_tag_invalid":
            key, value = problem["ctx"]["discriminator"].strip("'"), problem["ctx"]["tag"]
            known = [each.strip(" '") for each in problem["ctx"]["expected_tags"].split(",")]
            return f"{where}.{key} is {value!r}; it must be one of {', '.join(known)}{nearest(value, known)}"
        case "union_tag_not_found":
            return f"{where}: {problem['ctx']['discriminator']} is missing; it says which kind this is"
        case "missing" if isinstance(path[-1], int):
            where, given = ".".join(str(part) for part in path[:-1]), json.dumps(problem["input"])
            return f"{where} is {given}; number {path[-1] + 1} of it is missing"
        case "value_error" | "missing":
            return f"{where}: {message}" if path else problem["msg"].removeprefix("Value error, ")
        case _:
            return f"{where} is {json.dumps(problem['input'])}: {message}{REMEDIES.get(problem['type'], '')}"


def _is_not_positive(problem: Problem) -> bool:
    """True for 0 and less where a number must be positive; its exact limit is no help."""
    return problem.get("ctx", {}).get("ge") == SMALLEST and float(problem["input"]) <= 0


def nearest(wrong: str, known: Sequence[str]) -> str:
    """``; did you mean 'steps'?``, or an empty text if no known word is near."""
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def walk(model: type[Table], place: Sequence[str | int]) -> tuple[list[str | int], list[type[Table]]]:
    """A place from pydantic -> the same without the names of kinds, which are not in the file; and the tables there."""
    path: list[str | int] = []
    tables: list[type[Table]] = [model]
    for part in place:
        if isinstance(part, str) and (kinds := [table for table in tables if _is_kind(table, part)]):
            tables = kinds
            continue
        path.append(part)
        fields = [table.model_fields[part] for table in tables if isinstance(part, str) and part in table.model_fields]
        if fields:
            tables = [table for field in fields for table in tables_of(field)]
    return path, tables


def _is_kind(table: type[Table], name: str) -> bool:
    """True if a key of the table can only be this name."""
    return any(
        get_origin(field.annotation) is Literal and get_args(field.annotation) == (name,)
        for field in table.model_fields.values()
    )


def tables_of(field: FieldInfo) -> Iterator[type[Table]]:
    """All tables that a field allows."""
    return tables_in(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)


def tables_in(annotation: Any) -> Iterator[type[Table]]:
    """All tables that an annotation allows, within unions, tuples and dictionaries too."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        yield annotation
    elif kinds := [kind for kind in getattr(annotation, "__metadata__", ()) if isinstance(kind, OneOf)]:
        yield from kinds[0].classes()
    elif get_origin(annotation) in (Annotated, Union, UnionType, tuple, dict):
        for each in get_args(annotation):
            yield from tables_in(each)


def _inside(place: Sequence[str | int], outer: Sequence[str | int]) -> bool:
    return len(place) > len(outer) and tuple(place[: len(outer)]) == tuple(outer)
