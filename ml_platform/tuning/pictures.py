"""Pictures of a study: how it went, which parameter mattered, which values went together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.specs.base import Spec
from ml_platform.specs.tuning import Choice, Dimension, Space, Trial
from ml_platform.tuning.board import ranked
from ml_platform.tuning.sampling import as_optuna, distribution, quiet
from ml_platform.tuning.spaces import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#1f5fa8", "#d9722e", "#8a8a8a"
DPI = 110
FEWEST_TRIALS = 4
"""Complete trials from which anything can be said about parameters."""
LABEL_LETTERS = 16
INCH_PER_AXIS = 1.7


def importance(trials: Sequence[Trial], space: Space, base: Spec) -> dict[str, float]:
    """How much of the variance of the loss each parameter explains, by fANOVA; the largest first.

    Parameters that only some trials were asked for are left out. Empty with too few complete trials, or
    where one parameter alone is left.
    """
    import optuna

    complete = [trial for trial in trials if trial.state == "complete"]
    if len(complete) < FEWEST_TRIALS or len({trial.value for trial in complete}) < 2:
        return {}
    distributions = {name: distribution(each, base, name) for name, each in space.dimensions.items()}
    with quiet():
        memory = optuna.create_study()
        memory.add_trials([as_optuna(trial, distributions) for trial in complete])
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(memory, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()} if len(found) > 1 else {}


def draw_history(trials: Sequence[Trial], title: str) -> Figure:
    """The loss of every trial in the order of their numbers, and the best up to then."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(7.5, 4)
    axes = figure.add_subplot()
    numbers = {state: [n for n, trial in enumerate(trials, 1) if trial.state == state] for state in _MARKS}
    values = {number: trial.value for number, trial in enumerate(trials, 1) if trial.value is not None}
    for state, (marker, color) in _MARKS.items():
        there = [number for number in numbers[state] if number in values]
        if there:
            axes.plot(there, [values[n] for n in there], marker, color=color, label=f"{state} ({len(there)})")
    lost = [n for n in (*numbers["failed"], *numbers["not run"]) if n not in values]
    if lost:
        on_the_edge = axes.get_xaxis_transform()
        axes.plot(
            lost,
            [0.02] * len(lost),
            "x",
            color=ORANGE,
            transform=on_the_edge,
            label=f"no value ({len(lost)})",
        )
    best = np.fmin.accumulate(
        [
            trial.value if trial.state == "complete" and trial.value is not None else math.nan
            for trial in trials
        ]
    )
    axes.step(range(1, len(trials) + 1), best, where="post", color=BLUE, linewidth=1, label="best so far")
    if values and min(values.values()) > 0 and max(values.values()) > 20 * min(values.values()):
        axes.set_yscale("log")
    metric = next((trial.metric for trial in trials if trial.metric), "loss")
    axes.set(xlabel="trial", ylabel=f"{metric} on validation", title=title, xlim=(0.5, len(trials) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)
    return figure


def draw_parallel(trials: Sequence[Trial], space: Space, title: str) -> Figure:
    """A line per trial through its values, the better the darker; the best in orange.

    A line passes an axis without a dot where the trial was not asked for that parameter.
    """
    shown = [trial for _, trial in reversed(ranked(trials)) if trial.value is not None]
    names = [*space.dimensions, "loss"]
    figure = _figure(max(6.5, INCH_PER_AXIS * len(names)), 4.4)
    axes = figure.add_subplot()
    scales: list[_Scale] = [_scale(each) for each in space.dimensions.values()]
    scales.append(_loss_scale([trial.value for trial in shown if trial.value is not None]))
    for place, trial in enumerate(shown):
        points = {
            at: point
            for at, (scale, name) in enumerate(zip(scales, names, strict=True))
            if (point := _at(scale, trial, name)) is not None
        }
        best = place == len(shown) - 1
        shade = 0.15 + 0.7 * place / max(1, len(shown) - 1)
        axes.plot(
            list(points),
            list(points.values()),
            color=ORANGE if best else BLUE,
            alpha=1 if best else shade,
            linewidth=2.2 if best else 1.1,
            marker="o",
            markersize=4 if best else 2.5,
            linestyle=":" if trial.state == "pruned" else "-",
        )
    for at, scale in enumerate(scales):
        axes.axvline(at, color=GREY, linewidth=0.8)
        for place_on_axis, text in scale.ticks:
            axes.text(at + 0.03, place_on_axis, text, fontsize=7, color="#333333", va="center")
    axes.set_xticks(range(len(names)), [_short(name) for name in names])
    axes.set_yticks([])
    axes.set(xlim=(-0.1, len(names) - 0.5), ylim=(-0.06, 1.06))
    axes.set_title(
        f"{title}\n{len(shown)} trials with a loss; the best in orange, pruned ones dotted", fontsize=11
    )
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    return figure


class _Scale:
    """Where a value stands on an axis from 0 to 1, and what is written there."""

    def __init__(self, place: Any, ticks: list[tuple[float, str]]) -> None:
        self.place = place
        self.ticks = ticks


def _scale(dimension: Dimension) -> _Scale:
    if isinstance(dimension, Choice):
        keys = [label(value) for value in dimension.values]
        places = {key: at / max(1, len(keys) - 1) for at, key in enumerate(keys)}
        return _Scale(lambda value: places[label(value)], [(places[key], _short(key)) for key in keys])
    return _numbers(dimension.low, dimension.high, log=dimension.log)


def _loss_scale(values: Sequence[float]) -> _Scale:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return _numbers(low, high, log=low > 0 and high > 20 * low)


def _numbers(low: float, high: float, *, log: bool) -> _Scale:
    def raw(value: float) -> float:
        return math.log(value) if log else value

    width = raw(high) - raw(low) or 1.0
    middle = math.exp((raw(low) + raw(high)) / 2) if log else (low + high) / 2
    ticks = [(0.0, f"{low:.4g}"), (0.5, f"{middle:.3g}"), (1.0, f"{high:.4g}")]
    return _Scale(lambda value: (raw(value) - raw(low)) / width, ticks if high > low else ticks[:1])


def _at(scale: _Scale, trial: Trial, name: str) -> float | None:
    value = trial.value if name == "loss" else trial.parameters.get(name)
    return None if value is None else float(scale.place(value))


_MARKS = {"complete": ("o", BLUE), "pruned": ("v", GREY), "failed": ("x", ORANGE), "not run": ("x", GREY)}


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.set_axisbelow(True)


def _short(text: str) -> str:
    safe = text.replace("$", r"\$")
    return safe if len(safe) <= LABEL_LETTERS else safe[: LABEL_LETTERS - 1] + "…"
