"""Whether the first record of a CSV file names its columns, where nobody has said it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from ml_platform.data.local_forms import FORMS, forms_of
from ml_platform.data.text_types import ALLOWED, KINDS, MISSING, PATTERNS, kind_counts, kinds_of, usual

STEPS = 3
"""Numbers that follow each other in steps of more than one, to be taken for names."""


def is_header(first: Sequence[str], records: Sequence[Sequence[str]]) -> bool:
    """Whether the first record is names, and not values as those that follow it.

    It is names unless it can hardly be: each cell above numbers, truth values or times is one of them or
    empty, one at least is not empty, and where there are columns of text, one of their cells stands again
    below it.
    Whole numbers in equal steps are names: 0, 1, 2 as pandas numbers columns, 2010, 2015, 2020.

    Args:
        records: Those that follow, of as many fields.

    >>> is_header(["id", "price"], [["1", "2.5"]]), is_header(["7", "2.5"], [["1", "2.5"]])
    (True, False)
    >>> is_header(["land", "2010"], [["fr", "5"]]), is_header(["fr", "2010"], [["fr", "5"]])
    (True, False)
    >>> is_header(["0", "1", "2"], [["5", "3", "1"]])
    True
    """
    cells = [cell.strip() for cell in first]
    if not any(map(_may_be_value, cells)) or _is_sequence(cells):
        return True
    below = [[record[at].strip() for record in records] for at in range(len(cells))]
    found = [_meant(cell, column) for cell, column in zip(cells, below, strict=True)]
    if "name" in found or "value" not in found:
        return True
    texts = [at for at, meant in enumerate(found) if meant == "text"]
    return bool(texts) and not any(cells[at] not in MISSING and cells[at] in below[at] for at in texts)


def _may_be_value(cell: str) -> bool:
    patterns = (*PATTERNS.values(), *(form.pattern for form in FORMS.values()))
    return any(re.search(pattern, cell) for pattern in patterns)


def _is_sequence(cells: Sequence[str]) -> bool:
    if len(cells) < 2 or not all(re.search(PATTERNS["bigint"], cell) for cell in cells):
        return False
    numbers = [int(cell) for cell in cells]
    step = numbers[1] - numbers[0]
    is_even = numbers == [numbers[0] + at * step for at in range(len(numbers))]
    return is_even and (step == 1 or (step > 1 and len(numbers) >= STEPS))


def _meant(cell: str, column: Sequence[str]) -> Literal["name", "value", "text", "nothing"]:
    """What a cell is, beside those below it; `text` where it may be either."""
    form = forms_of(["column"], [[value] for value in column]).get("column")
    counts = kind_counts(pa.array(column, pa.string()))
    if form is None and counts.any() and usual(counts) == "string":
        return "text"
    if cell in MISSING:
        return "nothing"
    if form is not None:
        return "value" if re.search(FORMS[form].pattern, cell) else "name"
    own = KINDS[int(kinds_of(pa.array([cell], pa.string()))[0])]
    allowed = ALLOWED[usual(counts)] if counts.any() else tuple(PATTERNS)
    return "value" if own in allowed else "name"
