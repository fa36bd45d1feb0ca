"""Statistics of counted values are those of the rows themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ml_platform.features.statistics import (
    exact_sums,
    is_skewed,
    moments,
    quantile,
    signed_log,
    skewness,
    spread,
)

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


def counted(values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    distinct, rows = np.unique(np.array(values), return_counts=True)
    return distinct, rows


@settings(max_examples=100, deadline=None)
@given(values=numbers, share=st.floats(0, 1))
def test_they_are_those_of_numpy(values: list[float], share: float) -> None:
    mean, deviation = moments(*counted(values))
    assert mean == pytest.approx(np.mean(values), abs=1e-6)
    assert deviation == pytest.approx(np.std(values), abs=1e-6)
    inverted = np.quantile(values, share, method="inverted_cdf")
    assert quantile(*counted(values), share) == inverted


def test_robust_spread_is_median_and_interquartile_range() -> None:
    assert spread(*counted([0, 1, 2, 3, 1000]), "robust") == (2, 2)


def test_without_a_range_robust_falls_back_to_the_deviation_and_then_to_one() -> None:
    mostly = [0.0] * 9 + [10.0]
    assert spread(*counted(mostly), "robust") == (0, pytest.approx(np.std(mostly)))
    assert spread(*counted([5.0, 5.0]), "robust") == (5, 1)
    assert spread(*counted([5.0, 5.0]), "standard") == (5, 1)
    assert spread(*counted([1.0, 5.0]), "none") == (0, 1)


def test_extremes_have_finite_statistics() -> None:
    for values in ([-1.7e308, 1.7e308], [-1.7e308] * 3 + [1.7e308] * 3, [1e308, 5e-324, 0.0]):
        for scale in ("standard", "robust"):
            center, width = spread(*counted(values), scale)
            assert np.isfinite([center, width]).all()
            assert width > 0
        assert np.isfinite(skewness(*counted(values)))
        assert np.isfinite(signed_log(np.array(values))).all()


def test_a_logarithm_is_taken_where_it_helps() -> None:
    rng = np.random.default_rng(7)
    normal, income = rng.normal(size=2000), rng.lognormal(10, 1.5, size=2000)
    assert is_skewed(*counted(income.tolist()))
    assert is_skewed(*counted((-income).tolist()))
    assert not is_skewed(*counted(normal.tolist()))
    assert not is_skewed(*counted([0.0] * 99 + [1.0]))  # as lopsided as before
    assert not is_skewed(*counted([3.0]))


def test_the_logarithm_keeps_order_and_sign() -> None:
    values = np.array([-1e308, -5.0, -0.0, 0.0, 1.0, 2.0**53 + 2])
    logs = signed_log(values)
    assert (np.diff(logs) >= 0).all()
    assert (np.sign(logs) == np.sign(values)).all()


@given(st.lists(st.floats(-1e300, 1e300), max_size=60))
@settings(max_examples=300, deadline=None)
def test_few_numbers_have_exactly_the_sum_of_many(numbers: list[float]) -> None:
    """From the smallest that there is to large ones, and where nearly all of it cancels out."""
    for listed in (numbers, [*numbers, 5e-324, *(-number for number in numbers)]):
        assert math.fsum(exact_sums(np.array(listed))) == math.fsum(listed)


def test_the_sum_of_a_million_numbers_is_rounded_once() -> None:
    numbers = np.random.default_rng(0).lognormal(0, 20, 1_000_000) * np.resize([1, -1, 1], 1_000_000)
    few = exact_sums(numbers)
    assert len(few) < 1_000
    assert math.fsum(few) == math.fsum(numbers.tolist())


def test_a_sum_with_infinity_is_no_finite_number() -> None:
    assert not math.isfinite(math.fsum(exact_sums(np.array([1.0, math.inf]))))
