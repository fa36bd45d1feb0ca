"""Tasks of the shop. Each returns all that it computes, so that an edit that means something shows."""

from __future__ import annotations

import asyncio
import importlib

import parcels

from ml_platform import task
from shop import classes, functions, names, rules, values
from shop.functions import price as price_of
from shop.readers import read
from shop.specs import Basket, Colour, Order


@task
def call_functions(n: int) -> list[str]:
    """Functions that call functions."""
    # One line per way of reaching code.
    found = [
        price_of(n),
        functions.with_default(n),
        functions.with_keyword(n),
        functions.tripled(n),
        functions.decorated(n),
        functions.decorated_with_argument(n),
        functions.wrapped(n),
        functions.OPERATIONS["add"](n),
        functions.STEPS[0](n),
        functions.halved(n),
        functions.in_comprehension(n),
        functions.in_generator(n),
        functions.nested(n),
        functions.matched(n),
        functions.guarded(n),
        functions.walrus(n),
        functions.unpacked(n),
        asyncio.run(functions.awaited(n)),
        functions.cached(n),
        functions.sized(n),
        functions.sized("four"),
        functions.forever(n),
    ]
    total = sum(len(str(one)) for one in found)
    return [f"{total} in all", *map(str, found)]


@task
def use_classes(n: int, basket: Basket = Basket(), order: Order = Order(amount=1)) -> list[str]:
    """Methods, properties, bases, fields."""
    shape = classes.Square(n)
    found = [
        shape.area(),
        shape.perimeter,
        shape.describe(),
        classes.Square.unit().side,
        classes.Square.name,
        classes.Counted.kinds,
        classes.Slotted(n).total(),
        classes.area_of(shape),
        Colour.RED.value,
        Colour.RED.shade(),
        basket.size,
        basket.tags,
        basket.doubled(),
        order.total(),
        order.model_dump(),
        _accepts(n),
        rules.limit_of(order),
    ]
    return list(map(str, found))


def _accepts(n: int) -> str:
    try:
        return str(Order(amount=n, note=" Mixed "))
    except ValueError as error:
        return str(error)


@task
def use_values(n: int) -> list[str]:
    """Constants of modules, in every wrapping."""
    found = [
        n * values.RATE,
        values.LABELS,
        values.TABLE["b"]["deep"],
        n in values.ALLOWED,
        values.WORDS.findall("one 2 three"),
        values.SETTINGS.level,
        values.METER.factor * n,
        values.ROUND(3.14159),
        values.pick({"size": 4, "colour": 5}),
        values.WAIT.total_seconds(),
        str(values.PRICE),
        values.WEIGHTS.tolist(),
        getattr(values, "HIDDEN"),  # noqa: B009
        parcels.weigh(n),
    ]
    return list(map(str, found))


@task
def import_late(n: int) -> list[str]:
    """Imports inside of functions."""
    from shop import late as delayed
    from shop.late import helper as helping

    return [str(helping(n)), str(delayed.CONSTANT)]


@task
def import_named(kind: str) -> str:
    """A table of names."""
    return read(kind or "plain")


@task
def look_up(name: str) -> str:
    """An attribute of a module that only the data knows."""
    return str(getattr(names, name or "first")())


@task
def import_computed(name: str) -> str:
    """A module that only the data knows."""
    module = importlib.import_module(f"shop.plugins.{name or 'alpha'}")
    return str(module.run())


def unused(n: int) -> int:
    return n + 1000
