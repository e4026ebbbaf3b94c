"""Arguments that several commands share."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pipeline.config.base import LARGEST, check_path, finite_number

if TYPE_CHECKING:
    from pipeline.geometry import BoundingBox

Number = TypeVar("Number", int, float)


def named(value: str) -> str:
    """The same path or URL; ``typer.BadParameter`` if it is empty or no text of one line."""
    try:
        return check_path(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", callback=named, help="Run file (run.yaml) or run directory.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. --set inference.batch_size=4; repeatable."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Delete the results of another input that the run directory holds.")
]
BoxOption = Annotated[
    str | None,
    typer.Option(metavar="Z:Z,Y:Y,X:X", help="Only this box of voxels, e.g. 185:250,0:250,0:250."),
]


def beside_sets(sets: Sequence[str] | None, options: Sequence[tuple[str, str, object]]) -> list[str]:
    """The overrides of ``--set``, then those of options that are keys of the run file: option, key, value or ``None``.

    Raises ``ConfigError`` if ``--set`` gives the key of an option as well.
    """
    from pipeline.config.reading import apply_overrides
    from pipeline.errors import ConfigError

    overrides = list(sets or ())
    for option, key, value in options:
        if value is None:
            continue
        for override in sets or ():
            if _reaches(apply_overrides({}, [override]), key):
                raise ConfigError(
                    f"{option} and --set {shlex.quote(override)} are both given, and both say {key}: leave one out"
                )
        overrides.append(f"{key}={value}")
    return overrides


def _reaches(table: object, key: str) -> bool:
    """True if a table of tables says a key, or something inside it."""
    for part in key.split("."):
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True


WHOLE = re.compile(r"[-+]?[0-9]{1,12}", re.ASCII)


def parse_values(text: str, name: str) -> tuple[int, ...]:
    """Whole numbers out of ``191,223``."""
    from pipeline.errors import ConfigError

    parts = [part.strip() for part in text.split(",")]
    if not all(WHOLE.fullmatch(part) for part in parts):
        raise ConfigError(f"{name} is {text[:80]!r}; give whole numbers, for example {name} 191,223")
    return tuple(map(int, parts))


def parse_vector(text: str, name: str) -> tuple[int, int, int]:
    """Three whole numbers out of ``1,2,3``; one number stands for all three axes."""
    return _three(text, name, lambda part: int(part) if WHOLE.fullmatch(part) else None, "whole numbers")


def parse_shape(text: str, name: str) -> tuple[int, int, int]:
    """Three voxel counts out of ``64,64,64``, each at least 1; one number stands for all three axes."""
    return _three(text, name, lambda part: int(part) or None if part.isascii() and part.isdecimal() else None, "counts")


def parse_sizes(text: str, name: str) -> tuple[float, float, float]:
    """Three lengths out of ``40,4.5,4.5``, finite and above 0; one number stands for all three axes."""
    return _three(text, name, _length, "lengths above 0")


def _length(part: str) -> float | None:
    value = finite_number(part)
    return value if 0 < value <= LARGEST else None


def _three(text: str, name: str, parsed: Callable[[str], Number | None], kind: str) -> tuple[Number, Number, Number]:
    """Three numbers; ``parsed`` gives ``None`` for what is no such number."""
    from pipeline.errors import ConfigError

    parts = text.replace(" ", "").split(",")
    values = [value for part in parts if len(part) < 40 and (value := parsed(part)) is not None]
    if len(values) != len(parts) or len(parts) not in (1, 3):
        raise ConfigError(f"{name} is {text[:80]!r}; give three {kind} z,y,x (or one for all), like {name} 40,8,8")
    z, y, x = values * (3 // len(values))
    return z, y, x


def finite(value: float | None) -> float | None:
    """The same number of an option; ``typer.BadParameter`` if it is infinite, or no number."""
    if value is not None and not abs(value) <= LARGEST:
        raise typer.BadParameter(f"{value} is not a number between {-LARGEST:g} and {LARGEST:g}.")
    return value


def parse_two(text: str, name: str) -> tuple[float, float]:
    """Two finite numbers out of ``1,99``."""
    from pipeline.errors import ConfigError

    try:
        low, high = (finite_number(part.strip()) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not (abs(low) <= LARGEST and abs(high) <= LARGEST):
        raise ConfigError(f"{name} is {text[:80]!r}; give two numbers, for example {name} 0.1,99.9")
    return low, high


def parse_box(text: str | None) -> BoundingBox | None:
    """A ``BoundingBox`` out of ``0:10,0:20,0:30``, or None; ``ConfigError`` for anything else and for an empty box."""
    from pipeline.errors import ConfigError
    from pipeline.geometry import BoundingBox

    if text is None:
        return None
    ranges = [axis.split(":") for axis in text.replace(" ", "").split(",")]
    ends = [int(end) for axis in ranges for end in axis if WHOLE.fullmatch(end)]
    if [len(axis) for axis in ranges] != [2, 2, 2] or len(ends) != 6:
        raise ConfigError(f"--box is {text[:80]!r}; it must look like 0:64,0:256,0:256 (z, y, x; half-open)")
    start, stop = ends[::2], ends[1::2]
    if any(first >= last for first, last in zip(start, stop, strict=True)):
        raise ConfigError(f"--box is {text!r}; it holds no voxel: along each axis the second number must be larger")
    return BoundingBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
