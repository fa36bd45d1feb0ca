"""The statement on probabilities: right about models that are calibrated, and about those that are not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.evaluation import calibration
from ml_platform.evaluation.calibration import bins_of, calibration_notes, calibration_of
from ml_platform.specs.references import Calibration, Metric, Verdict


def _binary(rng: np.random.Generator, rows: int, *, sharpened: float = 1.0) -> pa.Table:
    """Rows whose true probability is known; `sharpened` makes the model surer than it may be."""
    true = rng.beta(1, 2, rows)
    odds = (true / (1 - true)) ** sharpened
    score = odds / (1 + odds)
    label = (rng.random(rows) < true).astype(np.int32)
    return pa.table({"label": label, "predicted": (score > 0.5).astype(np.int32), "score": score})


def test_a_calibrated_model_is_said_to_be_so_as_often_as_stated() -> None:
    """In 95 of 100 tables: neither far more nor far less often, or the limit would be wrong."""
    rng = np.random.default_rng(0)
    found = [calibration_of(_binary(rng, 300)) for _ in range(100)]
    said = sum(each.error <= each.limit for each in found if each is not None)
    assert 89 <= said <= 99


def test_a_model_that_is_too_sure_is_not_calibrated() -> None:
    found = calibration_of(_binary(np.random.default_rng(1), 1_000, sharpened=2.5))
    assert found is not None
    assert str(found).startswith("not calibrated: the expected calibration error is 0.")


def test_the_error_is_the_mean_distance_over_bins() -> None:
    """Four rows at 0.15 of which two happened, one at 1.0 that did not: (4 × 0.35 + 1) / 5."""
    rows = pa.table(
        {"label": [1, 1, 0, 0, 0], "predicted": [0, 0, 0, 0, 1], "score": [0.15, 0.15, 0.15, 0.15, 1.0]}
    )
    found = calibration_of(rows)
    assert found is not None
    assert found.error == pytest.approx(0.48)
    assert bins_of(np.array([0.0, 0.0999, 0.1, 1.0])).tolist() == [0, 0, 1, 9]


def test_of_many_classes_the_predicted_one_is_held_against_what_was_right() -> None:
    rows = pa.table(
        {"label": [3, 2, -1, 0], "predicted": [3, 3, 3, -1], "confidence": [0.95, 0.95, 0.95, 0.0]}
    )
    found = calibration_of(rows)
    assert found is not None
    assert (found.rows, found.error) == (3, pytest.approx(0.95 - 1 / 3))


def test_no_prediction_has_no_calibration_and_many_rows_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calibration_of(pa.table({"label": [1], "predicted": [-1], "confidence": [0.0]})) is None
    monkeypatch.setattr(calibration, "MAX_ROWS", 100)
    rows = _binary(np.random.default_rng(2), 1_000)
    found = calibration_of(rows)
    assert found is not None
    assert found.rows == 100
    assert found == calibration_of(rows)


@pytest.mark.parametrize(
    ("error", "gain", "said"), [(0.3, -0.1, True), (0.3, 0.1, False), (0.01, -0.1, False)]
)
def test_who_is_refused_for_probabilities_that_were_moved_learns_of_it(
    error: float, gain: float, said: bool
) -> None:
    paired = Metric(value=gain, low=gain, high=gain)
    verdict = Verdict(decision="hold", reason="", metric="log_loss", against="a champion", gain=paired)
    notes = calibration_notes(Calibration(error=error, limit=0.1, rows=500), verdict)
    assert [("log_loss" in note, "class-weight" in note) for note in notes] == [(True, True)] * said
    assert calibration_notes(None, verdict) == []
