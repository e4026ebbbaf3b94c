"""Every key of a configuration file as a Markdown table, from the models themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from pipeline.config.base import LARGEST, SMALLEST, Table
from pipeline.config.reading import json_schema
from pipeline.config.run_file import RunConfig

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
    return "\n".join([INTRODUCTION, *_tables("", model, "The file", "", json_schema(model))])


def keys_of(model: type[Table] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every key of a file that is no table itself, with the tables before it: ``cluster.driver.cpus``; lists as one."""
    for name, field in model.model_fields.items():
        inner = _table(field)
        if inner is None or get_origin(field.annotation) is tuple:  # a list of tables is one key
            yield f"{prefix}{name}"
        else:
            yield from keys_of(inner, f"{prefix}{name}.")


def _tables(prefix: str, model: type[Table], title: str, text: str, schema: dict[str, Any]) -> Iterator[str]:
    """The keys of a table, then the tables in it."""
    keys = {name: field for name, field in model.model_fields.items() if _table(field) is None}
    properties = schema["properties"] if not prefix else schema["$defs"][model.__name__]["properties"]
    yield _section(prefix, title, text, keys, properties)
    for name, field in model.model_fields.items():
        inner = _table(field)
        if inner is not None:
            text = field.description or (inner.__doc__ or "").strip()
            several = ", a list of tables" if get_origin(field.annotation) is tuple else ""
            yield from _tables(f"{prefix}{name}.", inner, f"`{prefix}{name}`{several}", text, schema)


def _table(field: FieldInfo) -> type[Table] | None:
    """The model of a key that is a table, also of one that may be left out; a table with free names is a plain key."""
    if get_origin(field.annotation) is dict:
        return None
    options = get_args(field.annotation) or (field.annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, Table)), None)


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
    yield _kind(schema)
    limits = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
    for key, word in limits.items():
        if abs(schema.get(key, LARGEST)) < LARGEST:
            yield f"{word} {schema[key]:g}" if schema[key] != SMALLEST else "more than 0"


def _kind(schema: dict[str, Any]) -> str:
    kind: str = schema.get("format") or schema.get("type", "value")
    if kind == "object":
        values = schema.get("additionalProperties", {})
        return f"table of {'conditions' if '$ref' in values else 'lists of texts' if 'items' in values else 'texts'}"
    if kind != "array":
        return kind
    if "prefixItems" not in schema:
        return "list of integers" if schema["items"].get("type") == "integer" else "list of texts"
    return f"{schema['minItems']} {'numbers' if schema['prefixItems'][0]['type'] == 'integer' else 'positions'}"
