"""Every key of a configuration file as a Markdown table, from the models themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from pipeline.config import RunConfig, Table, json_schema

INTRODUCTION = """\
# Every key of a run file

`petaseg init` writes a commented example, and a JSON schema beside it, by which editors complete and check keys.
Shapes and positions are z, y, x in voxels. Any key can be overridden on the command line: `--set
inference.batch_size=4 --set chunk_shape=[64,64,64]`. Unknown keys, wrong types and impossible values are refused before
anything is computed.

This page is printed by `petaseg init --keys`.
"""


def markdown(model: type[Table] = RunConfig) -> str:
    """The page docs/configuration.md: a table for the keys of the file, then one for each table in it."""
    top = {name: field for name, field in model.model_fields.items() if not _is_table(field)}
    schema = json_schema(model)
    parts = [INTRODUCTION, _section("", "The file", "", top, schema["properties"])]
    for name, field in model.model_fields.items():
        if _is_table(field):
            inner: type[Table] = field.annotation  # type: ignore[assignment]
            properties = schema["$defs"][inner.__name__]["properties"]
            text = (inner.__doc__ or "").strip()
            parts.append(_section(f"{name}.", f"`{name}`", text, inner.model_fields, properties))
    return "\n".join(parts)


def _is_table(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Table)


def _section(prefix: str, title: str, text: str, fields: dict[str, FieldInfo], schema: dict[str, Any]) -> str:
    rows = [
        f"| `{prefix}{name}` | {_values(schema[name])} | {_default(f)} | {_text(f)} |" for name, f in fields.items()
    ]
    head = [f"## {title}", "", *([text, ""] if text else []), "| key | value | default | |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)  # type: ignore[call-arg]
    return "" if value is None else f"`{json.dumps(value)}`"


def _text(field: FieldInfo) -> str:
    return (field.description or "").replace("\n", " ").replace("|", "\\|")


def _values(schema: dict[str, Any]) -> str:
    options = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    return " or ".join(" ".join(_describe(option)) for option in options)


def _describe(schema: dict[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield ", ".join(f"`{value}`" for value in schema["enum"])
        return
    kind = schema.get("type", "value")
    count = schema.get("minItems")
    yield (
        f"{count} numbers"
        if kind == "array" and schema["prefixItems"][0]["type"] == "integer"
        else (f"{count} positions" if kind == "array" else kind)
    )
    limits = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
    yield from (f"{word} {schema[key]:g}" for key, word in limits.items() if key in schema)
