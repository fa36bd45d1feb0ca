"""Rows: one JSON line each, and all of them as a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bench.pairing import Interval

INTRODUCTION = """\
Written by `make bench`. A ratio is our time over the peer's, lower is better; in brackets the 95 % interval.
*Discarded* pairs saw more than 5 % foreign load; a row marked *disturbed* had too few others."""


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is in `unit`: × is our time over the peer's, lower is better."""

    bench: str
    case: str
    peer: str
    size: str
    ratio: float
    low: float
    high: float
    target: float | None = None
    unit: str = "×"
    ours: str = ""
    theirs: str = ""
    limit: str = ""
    pairs: int = 0
    discarded: int = 0
    disturbed: bool = False
    date: str = ""

    @property
    def met(self) -> bool | None:
        """None without a target. Missed only when the whole interval is on the wrong side."""
        return None if self.target is None else self.low <= self.target

    @property
    def key(self) -> tuple[str, ...]:
        return self.bench, self.case, self.peer, self.size

    def line(self) -> str:
        """As JSON."""
        numbers = {name: round(getattr(self, name), 4) for name in ("ratio", "low", "high")}
        content = {name: value for name, value in asdict(self).items() if value != ""}
        return json.dumps({**content, **numbers, "met": self.met}, ensure_ascii=False)


def row(bench: str, case: str, peer: str, size: str, value: Interval, **more: Any) -> Row:
    """A row of a measured interval."""
    return Row(bench, case, peer, size, value.value, value.low, value.high, **more)


def read_rows(path: Path) -> list[Row]:
    """Rows kept from earlier runs; none when there is no file."""
    if not path.exists():
        return []
    known = {field.name for field in fields(Row)}
    lines = map(json.loads, path.read_text().splitlines())
    return [Row(**{name: value for name, value in line.items() if name in known}) for line in lines]


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """New rows in place of older ones of the same comparison, sorted by bench."""
    found = {row.key: row for row in [*old, *new]}
    return sorted(found.values(), key=lambda row: (int(row.bench[1:]), row.size != "full", row.case))


def table(rows: Iterable[Row], facts: Mapping[str, str]) -> str:
    """RESULTS.md."""
    head = [
        "# Results",
        "",
        INTRODUCTION,
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
        "| bench | case | against | size | result | target | met | ours | theirs | limit | pairs | date |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *map(_line, rows), ""])


def _line(row: Row) -> str:
    unit = "×" if row.unit == "×" else f" {row.unit}"
    target = "" if row.target is None else f"≤ {row.target:g}{unit}"
    pairs = f"{row.pairs}" + (f", {row.discarded} discarded" if row.discarded else "")
    cells = [
        row.bench,
        row.case,
        row.peer,
        row.size,
        f"{row.ratio:.3g}{unit} [{row.low:.3g}, {row.high:.3g}]",
        target,
        _said(row),
        row.ours,
        row.theirs,
        row.limit,
        pairs + (", disturbed" if row.disturbed else ""),
        row.date,
    ]
    return f"| {' | '.join(cells)} |"


def _said(row: Row) -> str:
    if row.met is None or row.target is None:
        return ""
    if not row.met:
        return "**no**"
    return "yes" if row.high <= row.target else "within its interval"
