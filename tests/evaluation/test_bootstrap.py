"""Intervals: they cover what they promise, repeat by the seed, and stay in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from ml_platform.evaluation import bootstrap
from ml_platform.evaluation.bootstrap import (
    MAX_ROWS,
    by_group,
    cautious_mean_interval,
    confusion_interval,
    mean_interval,
    sampling_notes,
    weights_interval,
)
from ml_platform.evaluation.metrics import accuracy
from ml_platform.specs.contracts import Contract
from ml_platform.specs.references import Evaluation, Model


def test_covers_the_true_mean_as_often_as_stated() -> None:
    """A 90 % interval of 100 rows: the true mean lies in it 84 to 95 % of the time over 400 draws."""
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(400):
        low, high = mean_interval(rng.normal(3, 2, 100), resamples=300, confidence=0.9, seed=trial)
        inside += low <= 3 <= high
    assert 0.84 <= inside / 400 <= 0.95


def test_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(2).normal(0, 1, 1_000)
    low, high = mean_interval(values, resamples=20_000, confidence=0.95, seed=0)
    half = 1.96 * values.std() / np.sqrt(1_000)
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=half * 0.05)


def test_the_seed_decides() -> None:
    values = np.random.default_rng(3).random(200)
    once = mean_interval(values, resamples=200, confidence=0.95, seed=5)
    assert once == mean_interval(values, resamples=200, confidence=0.95, seed=5)
    assert once != mean_interval(values, resamples=200, confidence=0.95, seed=6)


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert mean_interval(np.full(50, 0.25), resamples=200, confidence=0.95, seed=0) == (0.25, 0.25)


def test_more_rows_than_are_resampled_keep_their_own_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample stands in for the rows, but the interval lies around the mean of all of them."""
    monkeypatch.setattr(bootstrap, "MAX_ROWS", 1_000)
    values = np.random.default_rng(4).exponential(1, 50_000)
    low, high = mean_interval(values, resamples=500, confidence=0.95, seed=0)
    assert low < values.mean() < high
    assert abs((low + high) / 2 - values.mean()) < 0.02
    assert 0.08 < high - low < 0.18


def test_memory_does_not_grow_with_rows_times_resamples() -> None:
    """100,000 rows, 200 resamples: 160 MB at once if all were drawn, less than 80 in chunks."""
    values = np.random.default_rng(5).random(100_000)
    tracemalloc.start()
    mean_interval(values, resamples=200, confidence=0.95, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6


def test_the_cautious_interval_holds_the_others() -> None:
    """Wider than the percentile bootstrap and than Student's t, never by much on tame values."""
    for seed in range(5):
        values = np.random.default_rng(seed).exponential(1, 80)
        settings = {"resamples": 400, "confidence": 0.95, "seed": seed}
        low, high = cautious_mean_interval(values, **settings)
        percentile = mean_interval(values, **settings)
        half = stats.t.ppf(0.975, 79) * values.std(ddof=1) / np.sqrt(80)
        assert low <= min(percentile[0], values.mean() - half) + 1e-12
        assert high >= max(percentile[1], values.mean() + half) - 1e-12
        assert high - low < 1.5 * 2 * half


def test_the_cautious_interval_survives_samples_without_spread() -> None:
    """Nearly all differences 0: some resamples have no spread to divide by, and the interval stays finite."""
    values = np.zeros(40)
    values[0] = 1.0
    low, high = cautious_mean_interval(values, resamples=500, confidence=0.95, seed=0)
    assert np.isfinite([low, high]).all()
    assert low < 0.025 < high
    assert cautious_mean_interval(np.full(40, 0.2), resamples=500, confidence=0.95, seed=0) == (0.2, 0.2)


def test_a_confusion_matrix_resamples_like_its_rows() -> None:
    """Multinomial counts are the bootstrap of rows: both ways give the same interval of accuracy."""
    confusion = np.array([[80, 20], [30, 170]])
    right = np.repeat([1.0, 0.0], [250, 50])
    by_cells = confusion_interval(
        confusion,
        lambda c: np.trace(c, axis1=-2, axis2=-1) / c.sum((-2, -1)),
        resamples=4_000,
        confidence=0.95,
        seed=1,
    )
    by_rows = mean_interval(right, resamples=4_000, confidence=0.95, seed=1)
    np.testing.assert_allclose(by_cells, by_rows, atol=0.006)


def test_a_large_confusion_matrix_is_resampled_in_chunks() -> None:
    confusion = np.random.default_rng(6).integers(0, 3, (301, 301))
    low, high = confusion_interval(confusion, accuracy, resamples=100, confidence=0.95, seed=0)
    assert 0 <= low <= high <= 0.02


def test_groups_widen_an_interval_as_much_as_their_rows_are_alike() -> None:
    """Forty groups of ten equal rows are forty rows, not four hundred: by either way of resampling them."""
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(40), 10)
    values = np.repeat(rng.normal(0, 1, 40), 10)
    expected = 2 * 1.96 * values.std() / np.sqrt(40)
    low, high = mean_interval(by_group(values, groups), resamples=2_000, confidence=0.95, seed=0)
    assert high - low == pytest.approx(expected, rel=0.1)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.1)

    def mean(weights: np.ndarray) -> np.ndarray:
        return weights @ values / weights.sum(-1)

    options = {"resamples": 2_000, "confidence": 0.95, "seed": 0}
    low, high = weights_interval(mean, 400, groups=groups, **options)
    assert high - low == pytest.approx(expected, rel=0.1)
    low, high = weights_interval(mean, 400, **options)
    assert high - low == pytest.approx(expected / np.sqrt(10), rel=0.1)


def test_groups_of_different_sizes_keep_the_mean_of_the_rows() -> None:
    values, groups = np.array([1.0, 1.0, 1.0, 5.0]), np.array([0, 0, 0, 1])
    assert by_group(values, groups).mean() == pytest.approx(2.0)


def test_a_part_that_was_sampled_is_named() -> None:
    """A reader of an interval must know what it stands on."""
    model = Model(
        uri="models:/m-1", family="keras", run_id="r", digest="d", classes=(), contract=Contract(columns=())
    )
    values = {"model": model, "data_fingerprint": "f", "metrics": {}, "rows_uri": "file:///r"}
    small = Evaluation(part="validation", rows=MAX_ROWS, **values)
    large = Evaluation(part="holdout", rows=MAX_ROWS + 1, **values)
    (note,) = sampling_notes([small, large, large])
    assert note.startswith("The holdout part has 200,001 rows: its intervals stand on a sample of 200,000")
    assert sampling_notes([Evaluation(part="holdout", rows=MAX_ROWS + 1, groups=7, **values)]) == []
