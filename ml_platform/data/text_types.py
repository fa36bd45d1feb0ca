"""Texts that are values of other types: which patterns they have, and how many of each a column holds.

Arrow and NumPy: a table may have thousands of columns, for which Spark would plan and compile expressions
longer than it reads the rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""Texts that stand for no value where a column's other values are not text."""

WHOLE = r"[+-]?(?:0|[1-9]\d{0,18})"
EXPONENT = r"[eE][+-]?\d+"
FRACTION = (
    rf"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*(?:{EXPONENT})?|{EXPONENT})|\.\d+(?:{EXPONENT})?)"
    r"|[+-]?(?:inf|Inf|Infinity)"
)
DATE = r"\d{4}-\d\d-\d\d"
TIMESTAMP = DATE + r"[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?"
PATTERNS: Mapping[str, str] = {
    "bigint": f"^(?:{WHOLE})$",
    "double": f"^(?:{FRACTION})$",
    "boolean": "^(?:true|false|True|False|TRUE|FALSE)$",
    "date": f"^{DATE}$",
    "timestamp": f"^{TIMESTAMP}$",
}
"""Types that a column may have instead of string, narrowest first. Numbers that begin with 0 are codes, and
so are whole ones beyond 64 bits: as floats, two of them could become one.

Spark's own inference takes 12:30:00 for a time of the present day, another value on each day.
"""
ALLOWED: Mapping[str, tuple[str, ...]] = {
    "bigint": ("bigint",),
    "double": ("bigint", "double"),
    "boolean": ("boolean",),
    "date": ("date",),
    "timestamp": ("date", "timestamp"),
}
"""Types of single values that a column of each type may mix."""
KINDS = (*PATTERNS, "string")
"""What a text may be; `string` is what is nothing else."""
EXCEPTIONS = 0.01
"""Share of a column's values that may be bad, where bad rows are set aside."""
QUARANTINE_LIMIT = 0.05
"""Share of a table's rows that may be bad."""

WORDS = {"bigint": "whole number", "double": "number"}
"""What a person calls a type, where that is not its name."""

Counts = NDArray[np.int64]
"""Values of each of `KINDS`, shape (6,); missing ones are none."""

_DAYS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def kind_counts(texts: pa.Array) -> Counts:
    """How many values of a column are of which type.

    >>> kind_counts(pa.array(["1", "2.5", "NA", None, "x", "2024-02-30"])).tolist()
    [1, 1, 0, 0, 0, 2]
    """
    counted = pc.value_counts(texts.drop_null())
    kinds = kinds_of(counted.field(0))
    rows = counted.field(1).to_numpy()
    there = kinds >= 0
    return np.bincount(kinds[there], weights=rows[there], minlength=len(KINDS)).astype(np.int64)


def kinds_of(texts: pa.Array) -> NDArray[np.int64]:
    """Place in `KINDS` of each text's own narrowest type, -1 for a missing value. Shape (rows,)."""
    found = np.full(len(texts), len(PATTERNS), np.int64)
    found[pc.is_in(texts, value_set=pa.array(MISSING, pa.string())).to_numpy(zero_copy_only=False)] = -1
    left = np.flatnonzero(found >= 0)
    # Spark's casts do not look at a line break at the end either.
    rest = pc.utf8_rtrim(texts.take(pa.array(left)), "\r\n")
    for at, (kind, pattern) in enumerate(PATTERNS.items()):
        if not len(left):
            break
        fits = pc.match_substring_regex(rest, pattern).to_numpy(zero_copy_only=False)
        if kind in _EXISTS and fits.any():
            fits[fits] = _EXISTS[kind](rest.filter(pa.array(fits)))
        found[left[fits]] = at
        left, rest = left[~fits], rest.filter(pa.array(~fits))
    return found


def narrowest(counts: Counts) -> str:
    """The narrowest type that every value has.

    >>> narrowest(np.array([1, 1, 0, 0, 0, 0])), narrowest(np.array([1, 0, 1, 0, 0, 0]))
    ('double', 'string')
    """
    return _usual(counts, int(counts.sum()))


def usual(counts: Counts) -> str:
    """The narrowest type that all but a few values have.

    >>> usual(np.array([99, 0, 0, 0, 0, 1])), usual(np.array([98, 0, 0, 0, 0, 2]))
    ('bigint', 'string')
    """
    return _usual(counts, (1 - EXCEPTIONS) * int(counts.sum()))


def surely_text(seen: Counts, most: int) -> bool:
    """Whether a column is text (`usual` says so) of which some values were seen.

    Args:
        most: Values that it has at most.

    >>> text = np.array([3, 0, 0, 0, 0, 30])
    >>> surely_text(text, 2000), surely_text(text, 4000)
    (True, False)
    """
    by_kind = dict(zip(KINDS, seen.tolist(), strict=True))
    others = (sum(seen.tolist()) - sum(by_kind[each] for each in mixed) for mixed in ALLOWED.values())
    # Values of no other type are enough when they are more than may be bad, whatever the rest is.
    return most == 0 or min(others) > EXCEPTIONS * most + 1


def _usual(counts: Counts, enough: float) -> str:
    if not counts.any():
        return "string"
    by_kind = dict(zip(KINDS, counts.tolist(), strict=True))
    fits = (kind for kind, mixed in ALLOWED.items() if sum(by_kind[each] for each in mixed) >= enough)
    return next(fits, "string")


def _whole_exist(texts: pa.Array) -> NDArray[np.bool_]:
    """Within 64 bits."""
    exist = np.ones(len(texts), bool)
    for at in np.flatnonzero(pc.binary_length(texts).to_numpy() >= len(str(2**63))):
        exist[at] = -(2**63) <= int(texts[at].as_py()) < 2**63
    return exist


def _dates_exist(texts: pa.Array) -> NDArray[np.bool_]:
    year, month, day = (_digits(texts, *place) for place in ((0, 4), (5, 7), (8, 10)))
    leaps = (month == 2) & (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last = np.where(month <= 12, np.array(_DAYS)[np.minimum(month, 12)], 0) + leaps
    exist: NDArray[np.bool_] = (day >= 1) & (day <= last)
    return exist


def _timestamps_exist(texts: pa.Array) -> NDArray[np.bool_]:
    hour, minute = _digits(texts, 11, 13), _digits(texts, 14, 16)
    parts = pc.extract_regex(texts, r"^.{16}(?::(?P<second>\d\d))?[.\d]*(?:Z|[+-](?P<east>\d\d:?\d\d))?")
    second, east = (pc.struct_field(parts, at) for at in range(2))
    zone = _numbers(pc.replace_substring(east, ":", ""))
    in_zone = (zone % 100 < 60) & (zone <= 1800)
    # Spark wants seconds before a zone.
    has_zone = pc.match_substring_regex(texts, r"(?:Z|[+-]\d\d:?\d\d)$").to_numpy(zero_copy_only=False)
    has_seconds = pc.not_equal(pc.binary_length(second), 0).to_numpy(zero_copy_only=False)
    clock = (hour < 24) & (minute < 60) & (_numbers(second) < 60)
    exist: NDArray[np.bool_] = _dates_exist(texts) & clock & in_zone & (has_seconds | ~has_zone)
    return exist


_EXISTS = {"bigint": _whole_exist, "date": _dates_exist, "timestamp": _timestamps_exist}
"""Of types that lack some values which look like theirs: 9223372036854775808, 2024-02-30."""


def _digits(texts: pa.Array, start: int, stop: int) -> NDArray[np.int64]:
    return _numbers(pc.utf8_slice_codeunits(texts, start, stop))


def _numbers(digits: pa.Array) -> NDArray[np.int64]:
    """Texts of digits as numbers; an empty text is 0."""
    there = pc.if_else(pc.equal(digits, ""), "0", digits)
    numbers: NDArray[np.int64] = there.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return numbers
