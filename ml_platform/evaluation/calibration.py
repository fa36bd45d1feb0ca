"""Whether probabilities may be read as frequencies: the expected calibration error, and a test of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ml_platform.evaluation.bootstrap import CHUNK_VALUES, FEWEST_RESAMPLES, MAX_ROWS, MOST_DRAWN
from ml_platform.specs.references import Calibration, Verdict

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

BINS = 10
SAMPLES = 1_000
CONFIDENCE = 0.95


def calibration_of(rows: pa.Table, *, seed: int = 7) -> Calibration | None:
    """How far predicted probabilities are from what happened, and how far chance alone would take them.

    Of two classes the probability of the second is held against its share; of more the probability of the
    predicted class against the share of right predictions. Rows fall into ten bins of equal width. The error
    is the mean distance over bins, weighted by rows. The limit is what 95 of 100 tables stay below whose
    labels are drawn with just the predicted probabilities: a model above it is not calibrated.

    Args:
        rows: Lines of an evaluation of a classifier. Of more than 200,000 a sample is taken, by the seed.
    Returns:
        None where no row has a prediction.
    Source: Bröcker and Smith 2007, Increasing the Reliability of Reliability Diagrams (consistency
        resampling).
    """
    predicted, happened = believed(rows)
    rng = np.random.default_rng(seed)
    if len(predicted) > MAX_ROWS:
        chosen = rng.choice(len(predicted), MAX_ROWS, replace=False)
        predicted, happened = predicted[chosen], happened[chosen]
    if not len(predicted):
        return None
    order = np.argsort(predicted, kind="stable")
    predicted, happened = predicted[order], happened[order]
    begins = np.flatnonzero(np.append(True, np.diff(bins_of(predicted)) > 0))
    error = _errors(predicted, happened.astype(np.float64), begins)
    drawn = _drawn_errors(predicted, begins, rng)
    return Calibration(error=float(error), limit=float(np.quantile(drawn, CONFIDENCE)), rows=len(predicted))


def believed(rows: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of each row with a prediction: a probability, and whether what it stands for happened."""
    label, chosen = rows.column("label").to_numpy(), rows.column("predicted").to_numpy()
    there = chosen >= 0
    if "score" in rows.column_names:
        return rows.column("score").to_numpy()[there], (label == 1)[there]
    return rows.column("confidence").to_numpy()[there], (label == chosen)[there]


def bins_of(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of each probability's bin, from 0. 1.0 is in the last."""
    return np.clip((probabilities * BINS).astype(np.int64), 0, BINS - 1)


def _errors(
    predicted: NDArray[np.float64], happened: NDArray[np.float64], begins: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Shape (…, rows) → (…)."""
    return np.asarray(np.abs(np.add.reduceat(happened - predicted, begins, axis=-1)).sum(-1) / len(predicted))


def _drawn_errors(
    predicted: NDArray[np.float64], begins: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Errors of tables for which the probabilities are true."""
    rows = len(predicted)
    samples = min(SAMPLES, max(FEWEST_RESAMPLES, MOST_DRAWN // rows))
    per_chunk = max(1, CHUNK_VALUES // rows)
    errors = np.empty(samples)
    for start in range(0, samples, per_chunk):
        count = min(per_chunk, samples - start)
        labels = rng.random((count, rows)) < predicted
        errors[start : start + count] = _errors(predicted, labels.astype(np.float64), begins)
    return errors


def calibration_notes(calibration: Calibration | None, verdict: Verdict) -> list[str]:
    """Why a challenger that ranks well may be refused: weighted classes move all its probabilities.

    Args:
        calibration: Of the challenger on the holdout; None when it predicts a number.
    """
    if calibration is None or calibration.error <= calibration.limit:
        return []
    if verdict.gain is None or verdict.gain.value >= 0:
        return []
    cause = "--keras.class-weight or --xgboost.class-weight balanced, if given, is a reason"
    return [f"The gate compares probabilities ({verdict.metric}), and they are not calibrated: {cause}."]
