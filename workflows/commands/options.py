"""Arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run file (run.yaml) or run directory.")]
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


def parse_vector(text: str, name: str, kind: type = int) -> tuple:  # type: ignore[type-arg]
    """Three numbers out of ``1,2,3``; one number stands for all three axes."""
    from pipeline.errors import ConfigError

    parts = text.replace(" ", "").split(",")
    try:
        values = tuple(kind(part) for part in parts)
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise ConfigError(f"{name} is {text!r}; give three numbers z,y,x (or one for all), for example {name} 40,8,8")
    return values * 3 if len(values) == 1 else values


def parse_two(text: str, name: str) -> tuple[float, float]:
    """Two numbers out of ``1,99``."""
    from pipeline.errors import ConfigError

    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{name} is {text!r}; give two numbers, for example {name} 0.1,99.9") from None
    return low, high


def parse_box(text: str | None):  # type: ignore[no-untyped-def]
    """A ``BoundingBox`` out of ``0:10,0:20,0:30``, or None."""
    from pipeline.errors import ConfigError
    from pipeline.geometry import BoundingBox

    if text is None:
        return None
    try:
        ranges = [tuple(int(end) for end in axis.split(":")) for axis in text.split(",")]
        (z0, z1), (y0, y1), (x0, x1) = ranges
    except ValueError:
        raise ConfigError(f"--box is {text!r}; it must look like 0:64,0:256,0:256 (z, y, x; half-open)") from None
    return BoundingBox((z0, y0, x0), (z1, y1, x1))
