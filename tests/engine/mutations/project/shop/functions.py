"""Functions that reach functions."""

from __future__ import annotations

import functools
from collections.abc import Callable

from shop.deep import fee, join, surcharge
from shop.wrappers import doubled, logged, scaled


def price(n: int) -> int:
    """What it costs."""
    subtotal = n * 10
    return subtotal + tax(n) + fee(n)


def tax(n: int) -> int:
    return n + 2


def with_default(n: int, by: int = 5) -> int:
    return n * by


def with_keyword(n: int, *, offset: int = 6) -> int:
    return n + offset


def times(factor: int) -> Callable[[int], int]:
    def multiply(n: int) -> int:
        return n * factor

    return multiply


tripled = times(3)


@doubled
def decorated(n: int) -> int:
    return n + 1


@scaled(by=7)
def decorated_with_argument(n: int) -> int:
    return n + 1


@logged
def wrapped(n: int) -> str:
    return f"wrapped {n}"


def _first(n: int) -> int:
    return n - 1


def _second(n: int) -> int:
    return n - 2


OPERATIONS = {"add": lambda n: n + 11, "sub": lambda n: n - 11}
STEPS = [_first, _second]
halved = functools.partial(lambda by, n: n / by, 2)


def in_comprehension(n: int) -> list[str]:
    return [f"item {i}" for i in range(n) if i % 2 == 0]


def in_generator(n: int) -> int:
    return sum(i * 4 for i in range(n))


def nested(n: int) -> int:
    def inner(m: int) -> int:
        return m * 13

    return inner(n)


def matched(n: int) -> str:
    match (n, n % 2):
        case (0, _):
            return "none"
        case (_, 1):
            return "odd"
        case _:
            return "even"


def guarded(n: int) -> str:
    """Catch what it must."""
    try:
        return str({}[n])
    except KeyError:
        return "caught"
    except LookupError:
        return "missed"
    finally:
        join([])


def walrus(n: int) -> int:
    if (m := n * 2) > 3:
        return m
    return 0


def unpacked(n: int) -> tuple[int, ...]:
    first, *rest = range(n)
    return (first, len(rest))


async def awaited(n: int) -> int:
    return n + 17


@functools.lru_cache(maxsize=8)
def cached(n: int) -> int:
    return n + surcharge()


@functools.singledispatch
def sized(n: object) -> int:
    return -1


@sized.register
def _(n: int) -> int:
    return n + 19


@sized.register
def _(n: str) -> int:
    return len(n) + 23


def forever(n: int) -> int:
    while True:
        n += 3
        if (n > 10 and n % 2) or n > 50:
            break
    return n
