"""Metrics of classes and of numbers, from what is kept of each row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.errors import DataError
from ml_platform.evaluation.bootstrap import (
    FEWEST_RESAMPLES,
    MOST_DRAWN,
    by_group,
    confusion_interval,
    mean_interval,
    weights_interval,
)
from ml_platform.evaluation.ranking import Ranking
from ml_platform.specs.problems import ProblemKind
from ml_platform.specs.references import Evaluation, Metric

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

CLIP = 1e-15
"""Least probability that a loss believes: a class that the model does not know costs -log of it."""

LOWER_IS_BETTER = {
    "log_loss": True,
    "roc_auc": False,
    "average_precision": False,
    "brier": True,
    "accuracy": False,
    "balanced_accuracy": False,
    "macro_f1": False,
    "rmse": True,
    "mae": True,
    "r2": False,
}

LOSS_COLUMNS: Mapping[str, str] = {
    "log_loss": "log_loss",
    "brier": "brier",
    "rmse": "squared_error",
    "mae": "absolute_error",
}
"""Metrics that each row has a share in, and its column: what two models can be compared by, row by row."""

FAILED_DEVIATIONS = 10
"""A row without a predicted number counts as wrong by so many standard deviations of the label."""

GROUP = "group"
"""Column of an evaluation's lines: which rows belong together."""

RESAMPLES = 1_000
CONFIDENCE = 0.95


def row_losses(
    probabilities: NDArray[np.float32], labels: NDArray[np.int32], failed: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """Losses of each row.

    Args:
        probabilities: Shape (rows, classes).
        labels: Shape (rows,), index of the class, -1 where the model does not know it.
        failed: Shape (rows,), true where there is no prediction; such rows cost the most there is.
    Returns:
        `log_loss` (nats) and `brier`, shape (rows,) each: the sum of squares over classes, 0 to 2; of two
        classes the square of the second one alone, 0 to 1.
    """
    values = probabilities.astype(np.float64)
    known = labels >= 0
    rows = np.arange(len(labels))
    right = np.where(known & ~failed, values[rows, np.maximum(labels, 0)], 0.0)
    squares = np.where(failed, 2.0, (values**2).sum(axis=1) - 2 * right + 1)
    brier = squares / 2 if values.shape[1] == 2 else squares
    return {"log_loss": -np.log(np.clip(right, CLIP, 1.0)), "brier": brier}


def positive_scores(
    probabilities: NDArray[np.float32], labels: NDArray[np.int32], failed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """What rows are ranked by: the probability of the second of two classes. Shape (rows,).

    A row without a prediction stands at the wrong end.
    """
    return np.where(failed, np.where(labels == 1, 0.0, 1.0), probabilities[:, 1].astype(np.float64))


def row_errors(
    predicted: NDArray[np.float64], labels: NDArray[np.float64], failed: NDArray[np.bool_], scale: float
) -> dict[str, NDArray[np.float64]]:
    """Errors of each row, all of shape (rows,), in the label's own unit.

    Args:
        failed: True where there is no prediction; such rows are wrong by ten times `scale`.
        scale: Standard deviation of the label.
    Returns:
        `absolute_error` and `squared_error`.
    """
    error = np.where(failed, FAILED_DEVIATIONS * scale, np.abs(predicted - labels))
    return {"absolute_error": error, "squared_error": np.square(error)}


def primary_metric(problem: ProblemKind) -> str:
    """What models of a kind are chosen and compared by, unless somebody says otherwise."""
    return "rmse" if problem == "regression" else "log_loss"


def metrics_of(rows: pa.Table, classes: int, *, seed: int = 7) -> dict[str, Metric]:
    """Every metric of the rows of an evaluation, with 95 % bootstrap intervals.

    Args:
        rows: Columns label, predicted, log_loss, brier, and of two classes score; of numbers label,
            absolute_error, squared_error. Where there is a column `group`, groups are resampled, not rows.
        classes: Classes that the model knows; 0: it predicts a number.
    Raises:
        DataError: There are no rows.
    """
    if rows.num_rows == 0:
        raise DataError("a model cannot be measured on no rows")
    groups = groups_of(rows)
    if classes:
        return _metrics_of_classes(rows, classes, groups, seed)
    return _metrics_of_numbers(rows, groups, seed)


def groups_of(rows: pa.Table) -> NDArray[np.int64] | None:
    """The number of each row's group, from 0, where rows of an evaluation have groups. Shape (rows,)."""
    if GROUP not in rows.column_names:
        return None
    return np.unique(rows.column(GROUP).to_numpy(), return_inverse=True)[1].astype(np.int64)


def _metrics_of_numbers(rows: pa.Table, groups: NDArray[np.int64] | None, seed: int) -> dict[str, Metric]:
    """Root mean squared error, mean absolute error, and the share of the variance that is explained."""
    labels = rows.column("label").to_numpy()
    distance = labels - labels.mean()
    columns = np.stack(
        [
            rows.column("squared_error").to_numpy(),
            rows.column("absolute_error").to_numpy(),
            distance,
            np.square(distance),
        ],
        axis=1,
    )
    statistics = {"rmse": root_mean_square, "mae": mean_error}
    if columns[:, 3].any():
        statistics["r2"] = explained
    return {name: _of_means(columns, of, groups, seed) for name, of in statistics.items()}


def root_mean_square(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of means of (squared error, absolute error, label, squared label). Shape (…, 4) → (…)."""
    return np.asarray(np.sqrt(means[..., 0]))


def mean_error(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean absolute error, of the same means."""
    return np.asarray(means[..., 1])


def explained(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """R²: 1 less the mean squared error as a share of the label's variance, of the same means."""
    variance = means[..., 3] - np.square(means[..., 2])
    with np.errstate(divide="ignore", invalid="ignore"):
        # A resample of equal labels has no variance to explain.
        return np.asarray(np.where(variance > 0, 1 - means[..., 0] / variance, 0.0))


def _of_means(
    columns: NDArray[np.float64],
    of: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    groups: NDArray[np.int64] | None,
    seed: int,
) -> Metric:
    return _weighted_metric(
        lambda weights: of(weights @ columns / weights.sum(-1)[..., None]), len(columns), groups, seed
    )


def _metrics_of_classes(
    rows: pa.Table, classes: int, groups: NDArray[np.int64] | None, seed: int
) -> dict[str, Metric]:
    found = {name: _mean_metric(rows.column(name).to_numpy(), groups, seed) for name in ("log_loss", "brier")}
    statistics: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy,
        "macro_f1": macro_f1,
    }
    if groups is None:
        confusion = confusion_of(rows, classes)
        found.update({name: _confusion_metric(confusion, of, seed) for name, of in statistics.items()})
    else:
        found.update(_grouped_confusion_metrics(rows, classes, statistics, groups, seed))
    if "score" in rows.column_names:
        found.update(_ranking_metrics(rows, groups, seed))
    return {name: found[name] for name in LOWER_IS_BETTER if name in found}


def _grouped_confusion_metrics(
    rows: pa.Table,
    classes: int,
    statistics: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]],
    groups: NDArray[np.int64],
    seed: int,
) -> dict[str, Metric]:
    """Of resampled groups the cells are not multinomial: they are counted, those that are used alone."""
    size = classes + 1
    used, cell = np.unique(_cells(rows, classes), return_inverse=True)
    resamples = min(RESAMPLES, max(FEWEST_RESAMPLES, MOST_DRAWN // (size * size)))

    def confusions(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        counted = np.stack([np.bincount(cell, row, len(used)) for row in np.atleast_2d(weights)])
        whole = np.zeros((len(counted), size * size))
        whole[:, used] = counted
        return whole.reshape(*weights.shape[:-1], size, size)

    found = {}
    for name, of in statistics.items():

        def statistic(
            weights: NDArray[np.float64], of: Callable[[NDArray[np.float64]], NDArray[np.float64]] = of
        ) -> NDArray[np.float64]:
            return of(confusions(weights))

        low, high = weights_interval(
            statistic,
            rows.num_rows,
            groups=groups,
            resamples=resamples,
            confidence=CONFIDENCE,
            seed=seed,
        )
        value = float(statistic(np.ones(rows.num_rows)))
        found[name] = Metric(value=value, low=low, high=high)
    return found


def _ranking_metrics(rows: pa.Table, groups: NDArray[np.int64] | None, seed: int) -> dict[str, Metric]:
    """Nothing where one class has no row: there is nothing to rank."""
    labels = rows.column("label").to_numpy()
    known = labels >= 0
    positive = labels[known] == 1
    if positive.all() or not positive.any():
        return {}
    ranking = Ranking(rows.column("score").to_numpy()[known], positive)
    statistics = {"roc_auc": ranking.roc_auc, "average_precision": ranking.average_precision}
    kept = None if groups is None else np.unique(groups[known], return_inverse=True)[1]
    return {name: _weighted_metric(of, len(positive), kept, seed) for name, of in statistics.items()}


def _weighted_metric(
    of: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    rows: int,
    groups: NDArray[np.int64] | None,
    seed: int,
) -> Metric:
    low, high = weights_interval(
        of, rows, groups=groups, resamples=RESAMPLES, confidence=CONFIDENCE, seed=seed
    )
    return Metric(value=float(of(np.ones(rows))), low=low, high=high)


def confusion_of(rows: pa.Table, classes: int) -> NDArray[np.int64]:
    """Counts by label and prediction.

    Returns:
        Shape (classes + 1, classes + 1). The last row counts labels that the model does not know, the last
        column rows without a prediction.
    """
    size = classes + 1
    return np.bincount(_cells(rows, classes), minlength=size * size).reshape(size, size)


def _cells(rows: pa.Table, classes: int) -> NDArray[np.int64]:
    """Each row's cell of the confusion matrix, flattened."""
    label = rows.column("label").to_numpy().astype(np.int64)
    predicted = rows.column("predicted").to_numpy().astype(np.int64)
    return np.where(label < 0, classes, label) * (classes + 1) + np.where(predicted < 0, classes, predicted)


def accuracy(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of rows predicted rightly. Shape (…, n, n) → (…)."""
    return np.asarray(_hits(confusion).sum(-1) / confusion.sum((-2, -1)))


def balanced_accuracy(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the classes in the data of the share predicted rightly. Shape (…, n, n) → (…)."""
    support = confusion.sum(-1)
    return _mean_over(_hits(confusion) / np.maximum(support, 1), support > 0)


def macro_f1(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean F1 over the classes that are in the data or were predicted. Shape (…, n, n) → (…)."""
    both = confusion.sum(-1) + confusion.sum(-2)
    both[..., -1] = confusion[..., -1, :].sum(-1)
    return _mean_over(2 * _hits(confusion) / np.maximum(both, 1), both > 0)


def _hits(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """The diagonal; an unknown label without a prediction is no hit."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64).copy()
    hits[..., -1] = 0
    return hits


def _mean_over(values: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray((values * counted).sum(-1) / np.maximum(counted.sum(-1), 1))


def _mean_metric(values: NDArray[np.float64], groups: NDArray[np.int64] | None, seed: int) -> Metric:
    units = values if groups is None else by_group(values, groups)
    low, high = mean_interval(units, resamples=RESAMPLES, confidence=CONFIDENCE, seed=seed)
    return Metric(value=float(values.mean()), low=low, high=high)


def _confusion_metric(
    confusion: NDArray[np.int64], of: Callable[[NDArray[np.float64]], NDArray[np.float64]], seed: int
) -> Metric:
    low, high = confusion_interval(confusion, of, resamples=RESAMPLES, confidence=CONFIDENCE, seed=seed)
    return Metric(value=float(of(confusion.astype(np.float64))), low=low, high=high)


def one_answer_notes(evaluation: Evaluation) -> list[str]:
    """That a model names one class whatever the row, as one of rare classes does: a sentence, or none."""
    measured, classes = evaluation.metrics.get("balanced_accuracy"), evaluation.model.classes
    if measured is None or not all(
        math.isclose(each, 1 / len(classes)) for each in (measured.low, measured.value, measured.high)
    ):
        return []
    what_to_do = "compare the probabilities with a threshold of your own"
    return [f"It gives every row of the {evaluation.part} the same class; to find rare ones, {what_to_do}."]
