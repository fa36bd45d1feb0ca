"""What scikit-learn and MLlib leave when they have learnt, and what both ask of the labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ml_platform.errors import DataError
from ml_platform.specs.problems import ProblemKind
from ml_platform.specs.tables import FeatureState


@dataclass(frozen=True)
class Learned:
    """A trained model and how it got there."""

    model: bytes
    """The model's file, as its family writes it."""

    history: Mapping[str, list[float]]
    """`train-…` and `validation-…` losses: per round of boosting, otherwise of the finished model alone."""

    importance: Mapping[int, float]
    """By number of the feature; empty where the estimator knows none."""

    measure: str
    """What `importance` is."""

    facts: Mapping[str, float]
    """Single numbers worth a line: steps of the solver, kept rounds."""


def loss_name(problem: ProblemKind) -> str:
    """What these families measure on validation: in nats, or in the unit of the standardised label."""
    return "rmse" if problem == "regression" else "log_loss"


def check_classes(there: Collection[int], state: FeatureState) -> None:
    """Refuse a table in which a class has no row to train on: its place among the outputs would be lost.

    Args:
        there: Class indices of the rows to train on.
    Raises:
        DataError: There are fewer than two classes, or one of them has no row.
    """
    if len(state.classes) < 2:
        raise DataError("there must be two classes at least", got=", ".join(state.classes))
    absent = [name for index, name in enumerate(state.classes) if index not in there]
    if absent:
        raise DataError(
            f"class {absent[0]!r} has no row to train on",
            wanted=f"rows of all {len(state.classes)} classes",
            got=f"none of {', '.join(absent[:10])}",
            hint="leave out rows of rare classes, or deal the rows anew with another salt",
        )
