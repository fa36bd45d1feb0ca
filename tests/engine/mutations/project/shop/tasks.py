"""Tasks of the shop. Each returns all that it computes, so that an edit that means something shows."""

from __future__ import annotations

import asyncio
import decimal
import fractions
import html
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import parcels

import shop.patches  # noqa: F401
from ml_platform import task
from shop import classes, functions, kinds, live, names, quiet, rules, texts, values
from shop.extras import leaf
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
def import_choices(n: int) -> list[str]:
    """Imports of modules that do more than define their names."""
    import shop.entries
    import shop.nest
    from shop import choices, passing, registry

    found = [
        choices.rate(),
        choices.limit(),
        choices.level(),
        choices.wrapped(),
        _through(passing),
        registry.TABLE["entry"](),
        registry.KINDS["Special"]().level(),
        registry.weight(n),
        shop.nest.inner.value(),
    ]
    return list(map(str, found))


def _through(module: ModuleType) -> int:
    return int(module.passed())


@task
def import_deep(n: int) -> str:
    """A module below packages that set something."""
    import shop.nest.inner as innermost
    from shop.registry import TABLE

    return f"{innermost.value()} {TABLE['nest']}"


@task
def import_file(name: str) -> str:
    """A file that only the data knows."""
    path = Path(__file__).with_name(f"{name or 'chosen'}.py")
    spec = importlib.util.spec_from_file_location("loaded", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.rate())


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


@task
def use_kinds(n: int) -> list[str]:
    """Types that the shop adds to, patches and settings."""
    third = decimal.Decimal(1) / 3
    found = [
        kinds.ALLOWED.allows(n),
        kinds.FOLDER.below(),
        kinds.Rated.__rate__,
        kinds.Rated().price,
        kinds.NEGATED(),
        kinds.LATEST.maxlen,
        kinds.LAYERS.parents["a"],
        kinds.MASKED.data.tolist(),
        kinds.COIN.unit,
        kinds.MADE().size,
        kinds.labelled(first=1, second=2),
        kinds.named(),
        live.parsed(),
        live.written("aB"),
        live.total_of([live.Item()]),
        html.escape("a"),
        fractions.Fraction(1).doubled(),
        leaf.grow(n),
        quiet.FIRST,
        third,
        decimal.getcontext().Emax,
    ]
    return list(map(str, found))


@task
def read_text(n: int) -> list[str]:
    """Docstrings and descriptions as data."""
    return [texts.query.__doc__ or "", texts.schema()]


@task
def look_around(n: int) -> int:
    """A module behind a function."""
    return int(texts.query.__globals__["HIDDEN"])


@task
def import_relative(n: int) -> str:
    """A module named relatively, and one of a folder that is no package."""
    return str(importlib.import_module(".plugins.alpha", "shop").run())


@task
def import_bare(name: str) -> str:
    """A module of a folder without `__init__.py`, that only the data knows."""
    return str(importlib.import_module(f"addons.{name or 'gamma'}").run())


def unused(n: int) -> int:
    return n + 1000
