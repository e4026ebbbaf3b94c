"""YAML as people mean it: what could be read in two ways is refused, with its line and the remedy.

key given twice        refused; aliases and merge keys (``<<: *base``) work
4:00:00, 010, y        texts, where YAML 1.1 reads 14400, 8 and a text
1e-3                   a number, where YAML 1.1 reads a text
2021-01-31             the text as it is written; 2021-99-99 is refused, since it is no date
.inf, .nan, 1e999      refused
yes, no, on, off       true and false, as in YAML 1.1
keys                   always texts
"""

from __future__ import annotations

import math
import re
from datetime import date
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

from pipeline.errors import ConfigError

PLAIN = "tag:yaml.org,2002:"
LARGEST = 100_000
"""Values in one file, each counted as often as aliases repeat it."""
DIGITS = 40
"""Digits of a number; no key needs more."""
_SOME = r"[0-9]+(?:_[0-9]+)*"
RESOLVERS = {
    "null": (re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "bool": (
        re.compile(r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$"),
        list("yYnNtTfFoO"),
    ),
    "int": (
        re.compile(r"^[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*|0x[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*)$"),
        list("-+0123456789"),
    ),
    "float": (
        re.compile(
            rf"^(?:[-+]?(?:{_SOME}\.(?:{_SOME})?|\.{_SOME})(?:[eE][-+]?[0-9]+)?"
            rf"|[-+]?{_SOME}[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+0123456789."),
    ),
    "timestamp": (re.compile(r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?$"), list("0123456789")),
    "merge": (re.compile(r"^<<$"), ["<"]),
}
"""What a text without quotes is: kind -> its form, and the characters that it can begin with."""
KINDS = {
    **{"int": "whole number", "float": "number", "bool": "yes or no"},
    **{"timestamp": "date", "map": "table", "seq": "list"},
}
"""The names of YAML's kinds in messages."""
BREAKS = re.compile("[\x85\u2028\u2029]")
"""Characters that YAML counts as line breaks and most programs do not."""


class _Loader(yaml.SafeLoader):
    """Reads one document into dictionaries with texts as keys, lists, texts, numbers, true, false and null."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012 (of this class alone)
    yaml_constructors: ClassVar[Any] = {}

    def __init__(self, text: str | bytes) -> None:
        super().__init__(text)
        self.deep_construct = True  # an alias inside of what it names is found out, and refused

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """Refuse keys that are given twice, before merge keys add others."""
        node = super().compose_mapping_node(anchor)
        seen: dict[str, Any] = {}
        for key, _ in node.value:
            text = _text_of(key)
            if text in seen:
                first = seen[text] + 1
                raise _problem(key, f"the key {text!r} is given twice, first in line {first}; keep one of them")
            seen[text] = key.start_mark.line
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """The value of a node; ``ConstructorError`` with its line for what is no value of its kind."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
            shown = repr(node.value[:40]) if isinstance(node, ScalarNode) else "this"
            kind = node.tag.removeprefix(PLAIN)
            raise _problem(node, f"{shown} is no {KINDS.get(kind, kind)}; put a text in quotes") from error

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A dictionary whose keys are the texts that stand in the file."""
        self.flatten_mapping(node)
        return {_text_of(key): self.construct_object(value, deep=True) for key, value in node.value}

    def read_int(self, node: ScalarNode) -> int:
        """A whole number."""
        _check_length(node)
        return int(self._scalar(node, "int"), 0)

    def read_float(self, node: ScalarNode) -> float:
        """A finite number."""
        _check_length(node)
        value = float(self._scalar(node, "float").lower().replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(value):
            raise _problem(node, f"{node.value} is no finite number; leave the key out if it shall have no limit")
        return value

    def read_date(self, node: ScalarNode) -> str:
        """The text of a date, as it is written."""
        year, month, day = (int(part) for part in re.split(r"[-Tt \t]", self._scalar(node, "timestamp"))[:3])
        date(year, month, day)
        return str(node.value)

    def _scalar(self, node: ScalarNode, kind: str) -> str:
        """The text of a node that has the form of its kind."""
        if not RESOLVERS[kind][0].match(node.value) and not (kind == "float" and node.value.lstrip("-+").isdecimal()):
            raise ValueError
        return str(node.value)


class Dumper(yaml.SafeDumper):
    """Puts texts in quotes that YAML 1.1 or ``_Loader`` would read as something else."""

    def represent_text(self, text: str) -> ScalarNode:
        """A text, with unusual line breaks as escapes."""
        return self.represent_scalar(f"{PLAIN}str", text, style='"' if BREAKS.search(text) else None)


Dumper.add_representer(str, Dumper.represent_text)

for kind, (form, first) in RESOLVERS.items():
    _Loader.add_implicit_resolver(f"{PLAIN}{kind}", form, first)
    Dumper.add_implicit_resolver(f"{PLAIN}{kind}", form, first)
_CONSTRUCTORS: dict[str, Any] = {
    "null": _Loader.construct_yaml_null,
    "bool": _Loader.construct_yaml_bool,
    "int": _Loader.read_int,
    "float": _Loader.read_float,
    "timestamp": _Loader.read_date,
    "str": _Loader.construct_yaml_str,
    "seq": _Loader.construct_yaml_seq,
    "map": _Loader.construct_yaml_map,
}
for kind, construct in _CONSTRUCTORS.items():
    _Loader.add_constructor(f"{PLAIN}{kind}", construct)
_UNKNOWN: Any = _Loader.construct_undefined
_Loader.add_constructor(None, _UNKNOWN)


def parse_yaml(text: str | bytes, source: str) -> Any:
    """The value of a YAML document; ``ConfigError`` that begins with ``source`` if it cannot be understood."""
    try:
        loader = _Loader(text)
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
        _check_size(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {_words(error)}{_remedy(error)}") from None
    except RecursionError:
        raise ConfigError(f"{source} is not valid YAML: its tables are nested too deeply; no key needs this") from None
    return value


def dump_yaml(data: Any, width: int = 120) -> str:
    """The text of plain values in the order of their keys, which ``parse_yaml`` and YAML 1.1 read as these values."""
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=width)


def quoted(text: str) -> str:
    """A text as YAML on one line: in quotes where it would be read as something else."""
    line = yaml.dump(text, Dumper=Dumper, width=math.inf, allow_unicode=True, default_flow_style=True)
    return line.removesuffix("...\n").rstrip("\n")


def _text_of(key: Node) -> str:
    """A key, as it is written."""
    if not isinstance(key, ScalarNode):
        raise _problem(key, "a key is a list or a table; keys are words")
    return str(key.value)


def _problem(node: Node, words: str) -> ConstructorError:
    return ConstructorError(None, None, words, node.start_mark)


def _check_length(node: ScalarNode) -> None:
    if len(node.value) > DIGITS:
        shown = f"{node.value[:12]}... with {len(node.value)} characters"
        raise _problem(node, f"{shown} is an absurd number; none here needs more than {DIGITS}")


def _check_size(value: Any) -> None:
    """Refuse documents that aliases make enormous."""
    sizes: dict[int, int] = {}

    def size(part: Any) -> int:
        if not isinstance(part, (dict, list)):
            return 1
        if id(part) not in sizes:
            sizes[id(part)] = 1 + sum(map(size, part.values() if isinstance(part, dict) else part))
        return sizes[id(part)]

    if (count := size(value)) > LARGEST:
        raise ConstructorError(None, None, f"its aliases make {count:.1e} values of it; at most {LARGEST} are read")


def _words(error: yaml.YAMLError) -> str:
    """YAML's own words, with the line and without the text around it."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark, words = error.problem_mark, " ".join(filter(None, (error.context, error.problem)))
    return f"line {mark.line + 1}, column {mark.column + 1}: {words}"


def _remedy(error: yaml.YAMLError) -> str:
    """What to do about a problem that YAML's own words leave unclear."""
    words = str(error)
    if "'\\t'" in words:
        return "; indent with blanks, not with tabs"
    if "mapping values are not allowed" in words or "cannot start any token" in words:
        return "; put a text with colons or special characters in quotes"
    return ""
