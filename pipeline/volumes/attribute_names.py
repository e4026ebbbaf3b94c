"""The names of axes as attributes write them: a text of letters, JSON, a list of texts, or tables with a name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.errors import VolumeError
from pipeline.volumes.axes import letters

NAMES = ("axes", "axis_names", "_ARRAY_DIMENSIONS", "axistags")
"""The attributes that may name the axes."""


def axis_names(url: str, attributes: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> list[str] | None:
    """The names of the axes; ``None`` if nothing has them.

    more: names that are written elsewhere than in attributes, by the word for the place.

    Raises ``VolumeError`` if one has another form, or if two differ.
    """
    written = {**(more or {}), **{key: attributes[key] for key in NAMES if attributes.get(key) is not None}}
    found = {key: names_in(url, key, value) for key, value in written.items()}
    if len({letters(names) for names in found.values()}) > 1:
        said = ", ".join(f"{key} = {', '.join(names)}" for key, names in found.items())
        raise VolumeError(
            f"{url} states its axes in two ways ({said}): say the order by adding #axes=zyx or #axes=czyx"
        )
    return next(iter(found.values()), None)


def names_above(url: str, above: Mapping[str, Mapping[str, Any]], ndim: int) -> list[str] | None:
    """The names of the axes that groups above an array state; those of another length belong to other arrays.

    Raises ``VolumeError`` if one has another form, or if two groups differ.
    """
    stated = {f"the axes of {group}": axis_names(url, attributes) for group, attributes in above.items()}
    return axis_names(url, {}, {place: names for place, names in stated.items() if names and len(names) == ndim})


def names_in(url: str, key: str, value: Any) -> list[str]:
    """The names of axes that an attribute holds; ``VolumeError`` if it has another form."""
    names = texts(value)
    if not names:
        raise VolumeError(
            f"{url} has the attribute {key} = {shown(value)}, which is no list of names of axes: say the order by "
            "adding #axes=zyx or #axes=czyx"
        )
    return names


def texts(value: Any) -> list[str] | None:
    """Names out of a text of letters, JSON, a list of texts, or tables with a name."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        text = value.strip("\x00 \t\n")
        parsed = _json(text) if text[:1] in ("{", "[") else None
        words = re.split(r"[\s,;/]+", text.partition("(")[0].strip())  # a remark in brackets may follow
        return (words if len(words) > 1 else list(words[0])) if parsed is None else texts(parsed)
    if isinstance(value, Mapping):
        return texts(value.get("axes"))
    if not isinstance(value, list | tuple):
        return None
    names = [text_in(each) for each in value]
    return names if all(names) else None  # type: ignore[return-value]


def text_in(value: Any) -> str | None:
    """The text of a value, or of the name in a table; ``None`` if there is none."""
    if isinstance(value, Mapping):
        value = value.get("name", value.get("key"))
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value.strip("\x00 ") or None if isinstance(value, str) else None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def shown(value: Any) -> str:
    """A value as a message shows it, cut at 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
