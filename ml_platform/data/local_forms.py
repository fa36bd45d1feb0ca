"""Numbers and dates as people write them for each other, and how Spark is to read them.

1.234,50 € is a number in Berlin, $1,234.50 one in Boston, and 31.12.2026 a day. What could as well be
something else, as 1,234, 1.234 € or 12/11/2026, stays the text that it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_platform.data.text_types import EXCEPTIONS, MISSING, QUARANTINE_LIMIT
from ml_platform.store.sql import quoted

MONEY = "[€$£]"


@dataclass(frozen=True)
class Form:
    """One way to write a value.

    Attributes:
        pattern: What each of these values looks like.
        sure: What no other way of writing has; one such value decides for its column.
        sql: The value as Spark reads it, of a text that has the pattern.
        said: How a person knows it.
    """

    pattern: str
    sure: str
    sql: str
    said: str


FORMS: Mapping[str, Form] = {
    "amount": Form(
        pattern=rf"^[+-]?{MONEY}? ?\d+(?: ?{MONEY})?$",
        sure=MONEY,
        sql=r"regexp_replace({0}, r'[ €$£]', '')",
        said="whole amounts of money, such as 5 €",
    ),
    "comma": Form(
        pattern=rf"^[+-]?{MONEY}? ?(?:[1-9]\d{{0,2}}(?:\.\d{{3}})+|0|[1-9]\d*)(?:,\d+)?(?: ?{MONEY})?$",
        sure=r",(?:\d{1,2}|\d{4,})(?!\d)|\.\d{3}[.,]|(?<!\d)0,",
        sql=r"translate(regexp_replace({0}, r'[ €$£]', ''), ',.', '.')",
        said="numbers with a decimal comma, such as 1.234,50",
    ),
    "money": Form(
        pattern=rf"^[+-]?{MONEY}? ?(?:[1-9]\d{{0,2}}(?:,\d{{3}})+|0|[1-9]\d*)(?:\.\d+)?(?: ?{MONEY})?$",
        sure=rf"{MONEY}.*\.\d{{1,2}}$|\.\d{{1,2}} ?{MONEY}$|,\d{{3}}[.,]|[$£] ?\d{{1,3}},",
        sql=r"regexp_replace({0}, r'[ €$£,]', '')",
        said="numbers with a currency or commas between thousands, such as $1,234.50",
    ),
    "day first": Form(
        pattern=r"^(?:\d{1,2}\.\d{1,2}\.\d{4}|\d{4}-\d\d-\d\d)(?: \d\d:\d\d(?::\d\d)?)?$",
        sure=r"^\d{1,2}\.",
        sql=r"regexp_replace(regexp_replace({0}, r'(?<!\d)(\d)\.', '0$1.'), "
        r"r'^(\d\d)\.(\d\d)\.(\d{{4}})', '$3-$2-$1')",
        said="days with points, such as 31.12.2026",
    ),
}
"""By name, in the order in which they are tried."""


def forms_of(
    names: Sequence[str], records: Sequence[Sequence[str]], trained: Mapping[str, str] = {}
) -> dict[str, str]:
    """Columns whose values are written in one of `FORMS`, a few exceptions aside, and its name.

    Args:
        trained: Forms of the columns that a model was trained on. They hold where the values could as well be
            in another: 1.500 alone is what 1.234,50 says that it is. And more values may be exceptions.

    >>> forms_of(["a", "b", "c"], [["1,5", "1.02.2026", "1,234"], ["1.000", "28.02.2026", "2,345"]])
    {'a': 'comma', 'b': 'day first'}
    """
    values = {name: [record[at].strip() for record in records] for at, name in enumerate(names)}
    found = {name: _form(values[name], trained.get(name)) for name in names}
    return {name: form for name, form in found.items() if form is not None}


def _form(values: Sequence[str], trained: str | None) -> str | None:
    known = [value for value in values if value not in MISSING]
    enough = (1 - (EXCEPTIONS if trained is None else QUARANTINE_LIMIT)) * len(known)
    fitting = {}
    for name, form in FORMS.items():
        fits = [value for value in known if re.search(form.pattern, value)]
        if fits and len(fits) >= enough:
            fitting[name] = any(re.search(form.sure, value) for value in fits)
    sure = [name for name, is_sure in fitting.items() if is_sure]
    return sure[0] if sure else trained if trained in fitting else None


def rewritten(name: str, form: str) -> str:
    """SQL of a column of texts, with those that have the form as Spark reads them."""
    value, how = quoted(name), FORMS[form]
    has_form = f"{value} RLIKE r'{how.pattern}'"
    return f"CASE WHEN {has_form} THEN {how.sql.format(value)} ELSE {value} END AS {value}"


def said(forms: Mapping[str, str]) -> tuple[str, ...]:
    """What a person should know of it, a line per form."""
    of = {form: [name for name, each in forms.items() if each == form] for form in FORMS}
    return tuple(
        f"{', '.join(names[:10])}{', …' if names[10:] else ''}: read as {FORMS[form].said}"
        for form, names in of.items()
        if names
    )
