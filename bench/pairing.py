"""Statistics of paired repetitions: medians, intervals, growth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

RESAMPLES = 2000
ENOUGH = 3
"""Clean pairs that a result needs; with fewer, the least disturbed ones stand in and the row says so."""


@dataclass(frozen=True)
class Block:
    """One repetition of one side."""

    seconds: float
    foreign: float = 0.0
    """Share of the machine that somebody else used meanwhile, 0 to 1."""
    called: float = 0.0
    """Seconds until the call returned, where events were still to be sent then."""

    def until_it_returned(self) -> Block:
        """The same repetition without the sending of events."""
        return replace(self, seconds=self.called)


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Pairs:
    """Pairs that count, and how many did not."""

    kept: tuple[tuple[Block, Block], ...]
    discarded: int
    disturbed: bool


def interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Median, and the bootstrap interval of it.

    Args:
        values: One per repetition; at least one.
    """
    if len(values) == 1:
        return Interval(values[0], values[0], values[0])
    drawn = np.random.default_rng(seed).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return Interval(float(median(values)), float(low), float(high))


def clean(pairs: Sequence[tuple[Block, Block]], *, limit: float) -> Pairs:
    """Without those pairs during which somebody else used more than `limit` of the machine."""
    kept = [pair for pair in pairs if worst(pair) <= limit]
    if len(kept) >= min(ENOUGH, len(pairs)):
        return Pairs(tuple(kept), len(pairs) - len(kept), disturbed=False)
    least = sorted(pairs, key=worst)[:ENOUGH]
    return Pairs(tuple(least), len(pairs) - len(least), disturbed=True)


def worst(pair: tuple[Block, Block]) -> float:
    """Foreign load of the more disturbed half."""
    return max(block.foreign for block in pair)


def ratio(pairs: Sequence[tuple[Block, Block]]) -> Interval:
    """Time of the first side over the time of the second, pair by pair."""
    return interval([ours.seconds / theirs.seconds for ours, theirs in pairs])


def difference(pairs: Sequence[tuple[Block, Block]]) -> Interval:
    """Seconds that the first side takes longer, pair by pair."""
    return interval([ours.seconds - theirs.seconds for ours, theirs in pairs])


def growth(sizes: Sequence[int], seconds: Sequence[Sequence[float]], *, seed: int = 0) -> Interval:
    """The exponent by which the shortest times grow, and its bootstrap interval over the repetitions.

    The shortest of several repetitions is the one that others disturbed least.

    Args:
        seconds: Repetitions per size, equally many of each.
    """
    times = np.asarray(seconds)
    drawn = np.random.default_rng(seed).integers(times.shape[1], size=(RESAMPLES // 10, times.shape[1]))
    found = [growth_exponent(sizes, list(times[:, chosen].min(axis=1))) for chosen in drawn]
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(growth_exponent(sizes, list(times.min(axis=1))), float(low), float(high))


def growth_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The k of `seconds = a + c · size^k`, with a ≥ 0, that fits best relative to the times.

    Args:
        sizes: At least three, all different.
    """
    n, t = np.asarray(sizes, float), np.asarray(seconds, float)
    exponents = np.arange(0.0, 3.001, 0.01)
    return float(min(exponents, key=lambda k: _misfit(n**k, t)))


def _misfit(grown: np.ndarray, t: np.ndarray) -> float:
    """Squared relative error of the best a ≥ 0 and c for this growth."""
    weighted = np.stack([1 / t, grown / t], axis=1)
    (a, c), *_ = np.linalg.lstsq(weighted, np.ones_like(t), rcond=None)
    if a < 0 or c < 0:
        a, c = 0.0, float((grown / t).sum() / ((grown / t) ** 2).sum())
    return float((((a + c * grown) / t - 1) ** 2).sum())
