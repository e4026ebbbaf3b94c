"""The figures that are measured on a device: a table that is written with each new row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HEAD = "| measure | network | settings | value | unit | of peak | note |\n|---|---|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Row:
    """One figure."""

    measure: str
    network: str
    settings: str = ""
    value: float | None = None
    """``None`` if it was not measured; ``note`` says why."""
    unit: str = ""
    share_of_peak: float | None = None
    note: str = ""
    wrong: bool = False
    """True if the measurement failed, or if what is claimed does not hold."""

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:,.0f}" if self.value >= 1000 else f"{self.value:.3g}"
        share = "" if self.share_of_peak is None else f"{100 * self.share_of_peak:.0f} %"
        return f"| {' | '.join((self.measure, self.network, self.settings, value, self.unit, share, self.note))} |"


class Table:
    """The rows so far, which are printed and written with each new one."""

    def __init__(self, machine: Mapping[str, str], output: str | None) -> None:
        self.machine, self.output, self.rows = machine, output, list[Row]()

    def add(self, row: Row) -> None:
        """Print a row, and write all rows so far if there is an output."""
        self.rows.append(row)
        print(row, flush=True)
        if self.output:
            plain = {"machine": self.machine, "rows": [asdict(each) for each in self.rows]}
            Path(f"{self.output}.json").write_text(json.dumps(plain, indent=1) + "\n")
            Path(f"{self.output}.md").write_text(self.page())

    def page(self) -> str:
        """Machine and table in Markdown."""
        facts = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        return f"{facts}\n\n{HEAD}" + "".join(f"{row}\n" for row in self.rows)


def differing(what: str, network: str, settings: str, digests: Sequence[str], *, claimed: bool) -> Row:
    """How many of several results are not the first. claimed: they must be equal."""
    first, *others = digests
    count = sum(each != first for each in others)
    wrong = claimed and count > 0
    return Row(f"bytes over {what}", network, settings, count, "results differ", note=f"of {len(others)}", wrong=wrong)


def shown(shape: Sequence[int], between: str = " x ") -> str:
    """A shape in words."""
    return between.join(map(str, shape))
