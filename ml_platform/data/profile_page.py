"""A profile as a person reads it: rows of a table, a page, a picture."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any

from ml_platform.data.findings import notes
from ml_platform.specs.profiles import ColumnProfile, Profile
from ml_platform.specs.references import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 200
MOST_PANELS = 48
PANELS_PER_ROW = 4
MOST_BARS = 6
NAME_LETTERS, VALUE_LETTERS = 26, 16
COMMONEST = 3
LEAST_SHARE = 0.005
NUMBERS = {"integer", "float", "decimal", "date", "timestamp"}
BLUE, ORANGE, GREY = "#1f5fa8", "#d9722e", "#8a8a8a"
DPI = 110


def profile_rows(profile: Profile) -> list[dict[str, object]]:
    """A line per column, for a table. Of thousands of columns the first."""
    return [
        {
            "column": column.name,
            "type": column.kind,
            "nulls": _share(column.nulls, profile.rows),
            "distinct": f"{column.distinct:,}",
            "lowest": _end(column, column.low, 0),
            "median": _quantile(column, 2) if column.kind in NUMBERS else "",
            "highest": _end(column, column.high, -1),
            "commonest": _commonest(column, profile.sampled),
        }
        for column in profile.columns[:MOST_ROWS]
    ]


def profile_page(table: Table) -> str:
    """A page in Markdown: counts, findings, and the columns as a table."""
    profile = table.profile
    if profile is None:
        return ""
    facts = [
        f"{profile.rows:,} rows, {len(profile.columns):,} columns, {table.quarantined:,} rows set aside."
    ]
    if profile.sampled < profile.rows:
        facts.append(f"Medians and commonest values are those of {profile.sampled:,} rows drawn evenly.")
    rows = profile_rows(profile)
    if len(profile.columns) > len(rows):
        facts.append(f"The first {len(rows)} columns are shown.")
    names = list(rows[0]) if rows else []
    lines = [f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in rows]
    head = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    found = [f"- {note}" for note in (*notes(table.findings), *table.notes)]
    return "\n".join([f"# Columns of {table.source}", "", " ".join(facts), "", *found, "", *head, *lines])


def draw_profile(profile: Profile, title: str) -> Figure:
    """A panel per column: how numbers spread, with the median; which values are common; how many lack."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shown = profile.columns[:MOST_PANELS]
    across = min(PANELS_PER_ROW, max(1, len(shown)))
    down = max(1, math.ceil(len(shown) / across))
    engine = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(3.3 * across, 1.0 + 2.0 * down), dpi=DPI, layout=engine)
    hidden = len(profile.columns) > len(shown)
    more = f", the first {len(shown)} of {len(profile.columns):,} columns" if hidden else ""
    figure.suptitle(f"{_plain(title, 70)}: {profile.rows:,} rows{more}", fontsize=12)
    for at, column in enumerate(shown):
        _draw_column(figure.add_subplot(down, across, at + 1), column, profile.rows)
    return figure


def _draw_column(axes: Axes, column: ColumnProfile, rows: int) -> None:
    axes.set_title(_plain(column.name, NAME_LETTERS), fontsize=10, loc="left")  # the bold font lacks signs
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=7, length=2)
    if column.kind in NUMBERS and column.bars:
        _draw_spread(axes, column)
    elif column.frequent and column.kind != "identifier":
        _draw_values(axes, column)
    else:
        axes.set_yticks([])
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
    facts = f"{column.kind}, {column.distinct:,} distinct"
    axes.set_xlabel(facts, fontsize=7.5, color=GREY)
    if column.nulls:
        missing = f"{_share(column.nulls, rows)} missing"
        axes.text(1, 1.04, missing, transform=axes.transAxes, ha="right", fontsize=7.5, color=ORANGE)


def _draw_spread(axes: Axes, column: ColumnProfile) -> None:
    axes.bar(range(len(column.bars)), column.bars, width=1.0, color=BLUE, edgecolor="white", linewidth=0.4)
    axes.set_yticks([])
    low, middle, high = (_quantile(column, at) for at in (0, 2, -1))
    last = len(column.bars) - 1
    axes.tick_params(axis="x", length=0)
    marks = {0: low, last / 2: f"median {middle}", last: high} if last else {0: middle}
    axes.set_xticks(list(marks), list(marks.values()))
    if last:
        ends = column.quantiles[0] / 2, column.quantiles[-1] / 2
        place = (column.quantiles[2] / 2 - ends[0]) / (ends[1] - ends[0])
        axes.axvline(place * len(column.bars) - 0.5, color=ORANGE, linewidth=1.2)
        first_label, *_, last_label = axes.get_xticklabels()
        first_label.set_horizontalalignment("left")
        last_label.set_horizontalalignment("right")


def _draw_values(axes: Axes, column: ColumnProfile) -> None:
    top = column.frequent[:MOST_BARS]
    axes.barh(range(len(top)), [each.share for each in top], color=BLUE, height=0.72)
    axes.set_yticks(range(len(top)), [_plain(each.value, VALUE_LETTERS) for each in top])
    axes.set_ylim(max(len(top), 3) - 0.4, -0.6)
    most = max(each.share for each in top)
    axes.set_xticks([0, most], ["0", f"{most:.1%}"])


def _quantile(column: ColumnProfile, at: int) -> str:
    if not column.quantiles:
        return ""
    value = column.quantiles[at]
    if column.kind in {"date", "timestamp"}:
        moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=value)  # noqa: DTZ001
        return f"{moment:%Y-%m-%d}"
    if column.kind == "integer" and abs(value) < 1e4:
        return f"{value:.0f}"  # 1961 may be a year
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def _end(column: ColumnProfile, value: str | None, at: int) -> str:
    return "" if value is None or column.kind not in NUMBERS else value


def _commonest(column: ColumnProfile, rows: int) -> str:
    """Values that occur more than once, and not in 0 % of rows."""
    top = [each for each in column.frequent[:COMMONEST] if each.share > max(1.5 / max(rows, 1), LEAST_SHARE)]
    return ", ".join(f"{_plain(each.value, VALUE_LETTERS)} ({each.share:.0%})" for each in top)


def _share(count: int, rows: int) -> str:
    if not count:
        return "0"
    return f"{count:,} ({count / rows:.1%})" if rows else f"{count:,}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _plain(text: str, letters: int) -> str:
    """One short line, with no sign that matplotlib takes for a formula or its fonts lack."""
    plain = "".join(c if c.isprintable() and ord(c) < 0x10000 else " " for c in text).replace("$", r"\$")
    return plain if len(plain) <= letters else f"{plain[: letters - 1]}…"
