"""What a column is to a model when nobody has said it: the rule.

| stored as | is a(n) | when |
|---|---|---|
| string | identifier | 95 % of at least 100 values differ, with less than 4 words and 100 letters each |
| string | text | 4 words or 100 letters each, on average, and more than one value in ten differs |
| string | category | otherwise; also a label |
| integer | identifier | every one of at least 100 values differs, and they count without a gap |
| other | its type | always |
"""

from __future__ import annotations

from typing import cast

from ml_platform.specs.contracts import ColumnKind, ColumnType

MOST_DIFFER = 0.95
ENOUGH_VALUES = 100
MANY_WORDS = 4
MANY_LETTERS = 100
FEW_ALIKE = 0.1


def text_kind(*, values: int, distinct: int, words: float, letters: float) -> ColumnKind:
    """What a column of strings is.

    Args:
        values: How many there are.
        distinct: How many of them differ.
        words: Per value, on average.
        letters: Per value, on average.

    >>> text_kind(values=1000, distinct=990, words=1, letters=6)
    'identifier'
    >>> text_kind(values=1000, distinct=990, words=12, letters=70)
    'text'
    >>> text_kind(values=1000, distinct=5, words=4, letters=30)
    'category'
    """
    is_long = words >= MANY_WORDS or letters >= MANY_LETTERS
    if is_long:
        return "text" if distinct > FEW_ALIKE * values else "category"
    return "identifier" if values >= ENOUGH_VALUES and distinct >= MOST_DIFFER * values else "category"


def integer_kind(*, values: int, distinct: int, low: int, high: int) -> ColumnKind:
    """What a column of whole numbers is: numbers of rows tell nothing of what is in them.

    >>> integer_kind(values=1000, distinct=990, low=1, high=1000)
    'identifier'
    >>> integer_kind(values=1000, distinct=990, low=1, high=5000)
    'integer'
    """
    counts = values >= ENOUGH_VALUES and high - low + 1 == values and distinct >= MOST_DIFFER * values
    return "identifier" if counts else "integer"


def plain_kind(column_type: ColumnType) -> ColumnKind:
    """What a column of this type is, whatever it holds."""
    return cast("ColumnKind", "category" if column_type == "string" else column_type)
