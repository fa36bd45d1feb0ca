"""Search spaces: what is searched by default, how people write one, and whether it has a valid point."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import JsonValue, ValidationError

from ml_platform.errors import SpecError, nearest
from ml_platform.specs.base import Spec
from ml_platform.specs.references import Family, ModelFamily
from ml_platform.specs.tuning import Choice, Dimension, Range, Sampler, Space

S = TypeVar("S", bound=Spec)

SPACES: dict[ModelFamily, dict[str, str]] = {
    "keras": {
        "rate": "0.0003..0.03 log",
        "hidden": "[64] | [128, 64] | [256, 128]",
        "dropout": "0..0.5",
        "batch_rows": "32 | 64 | 128",
    },
    "xgboost": {
        "rate": "0.02..0.5 log",
        "depth": "2..10",
        "subsample": "0.5..1",
    },
    "sklearn": {
        "estimator": "linear | forest | boosting",
        "l2": "0.001..100 log if estimator = linear | boosting",
        "leaf_rows": "1..20 log if estimator = forest | boosting",
        "rate": "0.02..0.5 log if estimator = boosting",
    },
    "mllib": {
        "estimator": "linear | forest",
        "l2": "0.001..100 log if estimator = linear",
        "depth": "3..12 if estimator = forest",
        "leaf_rows": "1..20 log if estimator = forest",
    },
    "fine_tuned": {
        "rate": "0.0003..0.01 log",
        "fine_rate": "0.00001..0.001 log",
        "unfrozen": "0..20",
        "dropout": "0..0.5",
    },
}
"""What is searched where a person does not say it."""

SIZES_OF_RESOURCES = ("ranks", "workers", "device", "threads", "partitions")
"""Fields that say what a trial runs on: resources are sized before the first trial."""

WRITTEN = "LOW..HIGH, LOW..HIGH log, LOW..HIGH step S, or A | B | C; then perhaps: if FIELD = A | B"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\s*\.\.\s*({_NUMBER})(\s+log)?(?:\s+step\s+({_NUMBER}))?")
_CONDITION = re.compile(r"^(.*?)\s+if\s+(\w+)\s*=\s*(.*)$")


def check_searched(asked: Mapping[str, object], families: Sequence[Family]) -> None:
    """Refuse a space that nobody would search.

    Raises:
        SpecError: One is for a family that is not among these.
    """
    for name in asked:
        if name not in families:
            more = f"--families {' '.join([*families, name])}, or no --space.{name}"
            raise SpecError(
                f"there is a space for {name}, which is not searched",
                got=f"--families {' '.join(families)}",
                hint=more if name in get_args(Family) else nearest(name, get_args(Family)),
            )


def read_space(
    family: ModelFamily,
    asked: Mapping[str, Mapping[str, Dimension | str]],
    base: Spec,
    sampler: Sampler = "tpe",
) -> Space:
    """What is searched for a family: what was asked for, in place of what is searched by default.

    Args:
        asked: By family and field; a dimension, or as people write it: see `WRITTEN`.
        base: The family's spec; fields that are not searched keep its values.
        sampler: grid: ranges need a step.
    Raises:
        SpecError: A family or field does not exist, a dimension is none, or no point of it fits the spec.
    """
    if unknown := sorted(set(asked) - set(SPACES)):
        raise SpecError(f"no family {unknown[0]!r} can be searched", hint=nearest(unknown[0], SPACES))
    lines = asked.get(family) or SPACES[family]
    dimensions = {name: parse(f"{family}.{name}", line) for name, line in lines.items()}
    for name, dimension in dimensions.items():
        _check(f"{family}.{name}", name, dimension, dimensions, base)
        if (
            sampler == "grid"
            and isinstance(dimension, Range)
            and not (dimension.step or is_whole(base, name))
        ):
            raise SpecError(
                f"a grid has no end: {family}.{name} is a range without a step",
                got=written(dimension),
                hint=_as_grid(f"--space.{family}.{name}", dimension),
            )
    return Space(dimensions=dimensions)


def _as_grid(option: str, dimension: Range) -> str:
    if dimension.log:  # steps are equal differences, a logarithm asks for equal ratios: it has none
        return f'a grid takes no logarithmic range: {option} "A | B | C"'
    return f'{option} "{written(dimension)} step S", or "A | B | C"'


def parse(where: str, line: Dimension | str) -> Dimension:
    """A dimension from its text; one that is none stays as it is.

    >>> parse("xgboost.rate", "0.01..1 log")
    Range(low=0.01, high=1.0, log=True, step=None, when={})
    >>> parse("keras.dropout", "0.1 | 0.2 if hidden = [256, 128]")
    Choice(values=(0.1, 0.2), when={'hidden': ([256, 128],)})
    """
    if not isinstance(line, str):
        return line
    text, when = line.strip(), {}
    if found := _CONDITION.match(text):
        text, when = found[1].strip(), {found[2]: _values(found[3])}
    try:
        if numbers := _RANGE.fullmatch(text):
            low, high, log, step = numbers.groups()
            return Range(
                low=float(low), high=float(high), log=bool(log), step=float(step) if step else None, when=when
            )
        return Choice(values=_values(text), when=when)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SpecError(
            f"the search space has no valid point: {where}: {said}", wanted=WRITTEN, got=line
        ) from error


def written(dimension: Dimension) -> str:
    """A dimension as people write it.

    >>> written(Range(low=1, high=8, step=1, when={"booster": ("dart",)}))
    '1..8 step 1 if booster = dart'
    """
    if isinstance(dimension, Choice):
        text = " | ".join(map(label, dimension.values))
    else:
        step = "" if dimension.step is None else f" step {dimension.step:g}"
        text = f"{dimension.low:g}..{dimension.high:g}{' log' if dimension.log else ''}{step}"
    conditions = [f"{name} = {' | '.join(map(label, values))}" for name, values in dimension.when.items()]
    return " if ".join([text, *conditions])


def label(value: JsonValue) -> str:
    """A value as people write it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def applied(base: S, parameters: Mapping[str, Any]) -> S:
    """The spec with these fields in place.

    Raises:
        ValidationError: They do not fit it.
    """
    return type(base).model_validate({**base.model_dump(), **parameters})


def fits(base: Spec, parameters: Mapping[str, Any]) -> bool:
    """Whether the spec takes these fields."""
    try:
        applied(base, parameters)
    except ValidationError:
        return False
    return True


def is_whole(base: Spec, name: str) -> bool:
    """Whether the field takes whole numbers alone, or nothing."""
    return int in _types(base, name) and float not in _types(base, name)


def _types(base: Spec, name: str) -> set[object]:
    annotation = type(base).model_fields[name].annotation
    return set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}


def _values(text: str) -> tuple[JsonValue, ...]:
    return tuple(_value(part.strip()) for part in text.split("|"))


def _value(text: str) -> JsonValue:
    try:
        found: JsonValue = json.loads(text)
    except ValueError:
        return text
    return found


def _check(
    where: str, name: str, dimension: Dimension, all_of_them: Mapping[str, Dimension], base: Spec
) -> None:
    fields = set(type(base).model_fields) - set(SIZES_OF_RESOURCES)
    if name in SIZES_OF_RESOURCES:
        raise SpecError(f"{where} sizes a resource: it cannot be searched", hint=f"fix it: --{where} VALUE")
    if name not in fields:
        raise SpecError(f"there is no field {where} to search", hint=nearest(name, fields))
    if isinstance(dimension, Range) and not {int, float} & _types(base, name):
        raise SpecError(f"{where} is no number", wanted="values: A | B | C", got=written(dimension))
    _check_values(where, name, dimension, base)
    before = list(all_of_them)[: list(all_of_them).index(name)]
    for other, values in dimension.when.items():
        if other not in before:
            option = f"--space.{where.removesuffix(name)}{other}"
            raise SpecError(
                f"{where} depends on {other!r}, which is not asked for before it",
                hint=f'search it too, before this one: {option} "A | B"'
                if other in fields
                else nearest(other, fields),
            )
        choices = all_of_them[other]
        if isinstance(choices, Choice) and not any(value in choices.values for value in values):
            raise SpecError(
                f"the search space has no valid point: {where} is never asked for",
                wanted=f"{other} = one of {' | '.join(map(label, choices.values))}",
                got=" | ".join(map(label, values)),
            )


def _check_values(where: str, name: str, dimension: Dimension, base: Spec) -> None:
    """Limits of fields are ranges: where both ends fit, all between them do."""
    whole = isinstance(dimension, Range) and is_whole(base, name)
    ends: tuple[JsonValue, ...] = dimension.values if isinstance(dimension, Choice) else ()
    if isinstance(dimension, Range):
        ends = tuple(
            int(end) if whole and end == int(end) else end for end in (dimension.low, dimension.high)
        )
    for value in ends:
        try:
            applied(base, {name: value})
        except ValidationError as error:
            raise SpecError(
                f"the search space has no valid point: {where} cannot be {label(value)}",
                wanted=error.errors()[0]["msg"],
                got=written(dimension),
            ) from error
