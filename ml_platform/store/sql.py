"""Names and texts as Spark's SQL writes them: a text of a thousand columns is one call into the JVM."""

from __future__ import annotations


def quoted(name: str) -> str:
    """The name of a column, whatever dots, spaces or backticks are in it.

    >>> quoted("a`b.c")
    '`a``b.c`'
    """
    return f"`{name.replace('`', '``')}`"


def literal(value: int | str) -> str:
    """
    >>> print(literal(7), literal("it's"))
    7 'it\\'s'
    """
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
