"""What all tables of configuration files have in common: the table itself, and the types of its values."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function, tuple_schema

from pipeline.formats import FileFormat
from pipeline.geometry import Vec

MOST = 10**12
"""No count and no position is larger: an image of this many voxels along one axis would be kilometres long."""
SMALLEST, LARGEST = 1e-9, 1e9
"""No positive number is smaller or larger; as seconds the largest is 30 years."""


@dataclass(frozen=True)
class Form:
    """Annotates a text that must have a form as a whole, in words in the message and exactly in the JSON schema."""

    pattern: str
    """Regular expression of the whole text."""
    rule: str
    """The rule and the remedy, which follow the text in the message."""
    most: int = 253
    """Characters of the longest text."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$", "maxLength": self.most}

    def _checked(self, text: str) -> str:
        if len(text) > self.most or not re.fullmatch(self.pattern, text, re.ASCII):
            longest = f" (it has {len(text)} characters, of at most {self.most})" if len(text) > self.most else ""
            raise ValueError(f"{json.dumps(text[:80])} {self.rule}{longest}")
        return text


WORD = r"[A-Za-z0-9][A-Za-z0-9._/:@+-]*"

Count = Annotated[int, Field(ge=1, le=MOST)]
"""How many there are of something that must be there."""
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
"""How many there are of something that may be missing."""
Cores = Annotated[int, Field(ge=1, le=4096)]
"""Cores of a machine, or threads on them."""
Processes = Annotated[int, Field(ge=1, le=100_000)]
"""Processes or threads that work together."""
Name = Annotated[
    str, Form(WORD, "is no name; write letters, digits and ._/:@+- without blanks, beginning with a letter or a digit")
]
"""A word that is safe in a job script, so that no value of a run file can become a command."""
Names = Annotated[
    str,
    Form(
        rf"{WORD}(?:,{WORD})*",
        "is no name and no list of names; write names of letters, digits and ._/:@+-, several with commas between "
        "them and no blanks, like long or short,long",
        1024,
    ),
]
"""One name, or several with commas in between, as safe."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Seed of a generator of random numbers."""
Positive = Annotated[float, Field(ge=SMALLEST, le=LARGEST)]
Amount = Annotated[float, Field(ge=0, le=LARGEST)]
"""A positive number, or 0 for nothing of it."""
Share = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
"""A number of either sign."""


NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?", re.ASCII)
"""A number as people write it; Python reads 1_0 and digits of other scripts as numbers, too."""


def finite_number(text: str) -> float:
    """The number that an option or argument holds; NaN if it is none, infinite or absurdly long."""
    value = float(text) if len(text) <= 40 and NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


@dataclass(frozen=True)
class _Three:
    """What a file says as a list of three ``number``, and what is a ``Vec`` in Python."""

    number: Any

    def __get_pydantic_core_schema__(self, source: type[Vec], handler: GetCoreSchemaHandler) -> CoreSchema:
        three = tuple_schema([handler.generate_schema(self.number)] * 3)
        return no_info_after_validator_function(Vec._make, three)


Shape = Annotated[Vec, _Three(Count)]
"""Voxels along z, y and x."""
Voxel = Annotated[Vec, _Three(Annotated[int, Field(ge=-MOST, le=MOST)])]
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


CONTROLS = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, halves of characters, and breaks of lines and paragraphs."""


def is_line(text: str) -> bool:
    """True for a text of one line without control characters."""
    return not any(unicodedata.category(each) in CONTROLS for each in text)


def check_line(text: str) -> str:
    """The same text; ``ValueError`` if it has a line break or another control character."""
    if not is_line(text):
        raise ValueError(f"{json.dumps(text)} has a line break or another control character; leave it out")
    return text


VARIABLE = re.compile(r"(?:\w+://)?\$(?:\w+|\{\w+\})(?:/|$)", re.ASCII)
"""The beginning of a path in which a shell would put a value."""


def check_path(text: str) -> str:
    """The same path or URL; ``ValueError`` if it is empty or has a control character."""
    if not text:
        raise ValueError("the path is empty; name a file, folder or URL (. is the folder of this file)")
    if VARIABLE.match(text):
        raise ValueError(
            f"the path {text} begins with the name of a variable, and none is replaced here: write what it stands for "
            "(./ in front if a folder has this very name)"
        )
    return check_line(text)


Line = Annotated[str, AfterValidator(check_line)]
"""A text without line breaks and other control characters."""
DataPath = Annotated[str, PathMarker("path or URL"), AfterValidator(check_path)]
"""A file, folder or volume. In a run file, relative paths count from its folder."""
ModelName = Annotated[str, PathMarker("name, path or URL", may_be_name=True), AfterValidator(check_path)]
"""The name of a bundled model, or the place of a model's card or folder."""


def check_address(value: object) -> object:
    """The same value; ``ValueError`` unless it is host:port."""
    host, _, port = str(value).rpartition(":")
    if not host or not is_line(host) or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError(
            f"the address is {value}; it must be host:port, like 127.0.0.1:9095 for this machine only, or 0.0.0.0:9095 "
            "for everybody on the network"
        )
    return value


Address = Annotated[str, BeforeValidator(check_address)]
"""host:port to listen on."""


class Table(BaseModel):
    """A table of a configuration file: frozen, no unknown keys, no silent conversions, only finite numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    example: ClassVar[str] = "`petaseg init` writes an example"
    """The hint in the message for a file that cannot be read."""
    file_format: ClassVar[FileFormat | None] = None
    """The format of files of this table, if petaseg writes them too."""

    @property
    def keys_said(self) -> set[str]:
        """The keys that the file itself says, and not a short form in it."""
        return self.model_fields_set
