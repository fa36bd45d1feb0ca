"""Estimators of scikit-learn, trained in one process from packed features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ml_platform.errors import DataError, ResourceStartError
from ml_platform.resources.budget import usable_memory_mib
from ml_platform.resources.process_wide import heard, while_anyone
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import FeatureState
from ml_platform.specs.training import EstimatorName, SklearnSpec
from ml_platform.store.manifest import read_table
from ml_platform.training.learned import Learned, check_classes, loss_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

LINEAR_STEPS = 1_000
BYTES_PER_VALUE = 4 + 8
"""Features as they are read, and once more as the float64 that most estimators compute with."""


def train_estimator(train: Dataset, validation: Dataset, state: FeatureState, spec: SklearnSpec) -> Learned:
    """Train an estimator; boosting stops early on the validation part, and keeps the rounds it has by then.

    Args:
        train: Columns `label` (index of the class, or number) and `features` (packed, `state.width` values).
        validation: The same columns. Rows of classes that train does not know are left out.
    Raises:
        DataError: There are fewer than two classes, or one without a row to train on, or no row at all.
        ResourceStartError: The training part does not fit into memory.
    """
    _check_memory(train)
    features, labels = _rows(train, state)
    held_out = _rows(validation, state)
    if state.target is None:
        check_classes(set(np.unique(labels).tolist()), state)
    estimator = ESTIMATORS[spec.estimator, "classes" if state.target is None else "number"](spec)
    weights = None
    if spec.class_weight == "balanced" and state.classes:
        weights = np.asarray(state.balanced_weights)[labels.astype(np.int64)]
    with _threads(spec.threads):
        facts = _fit(estimator, features, labels, weights, held_out)
        history = _history(estimator, (features, labels), held_out, state)
    importance, measure = _importance(estimator)
    return Learned(_kept(estimator), history, importance, measure, facts)


def _logistic(spec: SklearnSpec) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1 / spec.l2, max_iter=LINEAR_STEPS, random_state=spec.seed)


def _ridge(spec: SklearnSpec) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=spec.l2, random_state=spec.seed)


def _forest_of_classes(spec: SklearnSpec) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_jobs=spec.threads, n_estimators=spec.trees, **_of_trees(spec))


def _forest_of_numbers(spec: SklearnSpec) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(n_jobs=spec.threads, n_estimators=spec.trees, **_of_trees(spec))


def _boosted_classes(spec: SklearnSpec) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(**_of_boosting(spec), **_of_trees(spec))


def _boosted_numbers(spec: SklearnSpec) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(**_of_boosting(spec), **_of_trees(spec))


def _of_trees(spec: SklearnSpec) -> dict[str, Any]:
    return {"max_depth": spec.depth, "min_samples_leaf": spec.leaf_rows, "random_state": spec.seed}


def _of_boosting(spec: SklearnSpec) -> dict[str, Any]:
    return {
        "max_iter": spec.trees,
        "learning_rate": spec.rate,
        "l2_regularization": spec.l2,
        "early_stopping": True,
        "n_iter_no_change": spec.patience,
        "scoring": "loss",
    }


ESTIMATORS: Mapping[tuple[EstimatorName, Literal["classes", "number"]], Callable[[SklearnSpec], Any]] = {
    ("linear", "classes"): _logistic,
    ("linear", "number"): _ridge,
    ("forest", "classes"): _forest_of_classes,
    ("forest", "number"): _forest_of_numbers,
    ("boosting", "classes"): _boosted_classes,
    ("boosting", "number"): _boosted_numbers,
}
"""What a spec's `estimator` stands for, by what the label is. A further one is a further line."""


def _check_memory(train: Dataset) -> None:
    width = train.contract["features"].width or 0
    wanted_mib = train.rows * width * BYTES_PER_VALUE >> 20
    if wanted_mib > (there := usable_memory_mib()):
        raise ResourceStartError(
            "the training part does not fit into the memory of one process",
            wanted=f"{wanted_mib:,} MiB for {train.rows:,} rows of {width:,} features",
            got=f"{there:,} MiB",
            hint="the families xgboost and mllib train on Spark executors",
        )


def _rows(part: Dataset, state: FeatureState) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Features, shape (rows, width), and labels, shape (rows,), of the rows whose label is known."""
    table = read_table(part, ["features", "label"])
    packed = table.column("features").combine_chunks()
    features = np.frombuffer(packed.buffers()[1], np.float32) if len(table) else np.empty(0, np.float32)
    features = features.reshape(-1, state.width)[packed.offset : packed.offset + len(table)]
    labels = table.column("label").to_numpy().astype(np.float64)
    known = labels >= 0 if state.target is None else np.isfinite(labels)
    if not known.any():
        raise DataError(f"part {part.uri.rsplit('/', 2)[-2]!r} has no row with a known label")
    return (features, labels) if known.all() else (features[known], labels[known])


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """No more threads than asked for: OpenMP's wait in a loop for each other, also on cores of others.

    OpenMP has a number for each thread, linear algebra one for the process.
    """
    from threadpoolctl import threadpool_limits

    algebra = partial(threadpool_limits, limits=number, user_api="blas")
    openmp = threadpool_limits(limits=number, user_api="openmp")
    with while_anyone("threads of linear algebra", algebra), openmp:
        yield


def _fit(
    estimator: Any,
    features: NDArray[np.float32],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    held_out: tuple[NDArray[np.float32], NDArray[np.float64]],
) -> dict[str, float]:
    from sklearn.exceptions import ConvergenceWarning

    boosting = hasattr(estimator, "n_iter_no_change")
    stopping = {"X_val": held_out[0], "y_val": held_out[1]} if boosting else {}
    with heard(ConvergenceWarning) as caught:
        estimator.fit(features, labels, sample_weight=weights, **stopping)
    steps = getattr(estimator, "n_iter_", None)
    if steps is None:
        return {}
    return {"steps": float(np.max(steps)), "converged": float(not caught)}


def _history(
    estimator: Any,
    train: tuple[NDArray[np.float32], NDArray[np.float64]],
    held_out: tuple[NDArray[np.float32], NDArray[np.float64]],
    state: FeatureState,
) -> dict[str, list[float]]:
    name = loss_name(state.problem)
    if hasattr(estimator, "validation_score_"):
        scores = {"train": estimator.train_score_, "validation": estimator.validation_score_}
        # Before the first round nothing is learnt. Of numbers the score is half of the squared error.
        return {
            f"{part}-{name}": [_loss_of(score, state) for score in values[1:]]
            for part, values in scores.items()
        }
    return {
        f"{part}-{name}": [_loss(estimator, *rows, state)]
        for part, rows in (("train", train), ("validation", held_out))
    }


def _loss_of(score: float, state: FeatureState) -> float:
    return float(-score) if state.target is None else float(np.sqrt(-2 * score))


def _loss(
    estimator: Any, features: NDArray[np.float32], labels: NDArray[np.float64], state: FeatureState
) -> float:
    if state.target is not None:
        return float(np.sqrt(np.square(estimator.predict(features) - labels).mean()))
    right = estimator.predict_proba(features)[np.arange(len(labels)), labels.astype(np.int64)]
    return float(-np.log(np.clip(right, 1e-15, 1)).mean())


def _importance(estimator: Any) -> tuple[dict[int, float], str]:
    if hasattr(estimator, "feature_importances_"):
        values, measure = estimator.feature_importances_, "share of the impurity that splits took away"
    elif hasattr(estimator, "coef_"):
        values, measure = np.abs(np.atleast_2d(estimator.coef_)).mean(axis=0), "mean size of coefficients"
    else:
        return {}, ""
    return {number: float(value) for number, value in enumerate(values) if value}, measure


def _kept(estimator: Any) -> bytes:
    import skops.io

    return bytes(skops.io.dumps(estimator))
