"""What is predicted: one of two classes, one of many, or a number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ml_platform.specs.base import NotIdentity, Spec

ProblemKind = Literal["binary", "multiclass", "regression"]
AskedProblem = Literal["auto", "binary", "multiclass", "regression"]


class Problem(Spec):
    """The kind of problem that a label poses."""

    kind: ProblemKind
    reason: Annotated[str, NotIdentity()] = Field(description="Why, and how to say otherwise: a sentence.")


class NumericTarget(Spec):
    """Fitted state of a numeric label: models learn `(y - center) / scale`, people see `y`."""

    center: float = Field(description="Mean of the training part.")
    scale: float = Field(gt=0, description="Standard deviation of the training part.")


def kind_of(classes: tuple[str, ...]) -> ProblemKind:
    """The kind of problem of a model that tells these classes apart; without classes it predicts a number.

    >>> kind_of(("no", "yes")), kind_of(())
    ('binary', 'regression')
    """
    if not classes:
        return "regression"
    return "binary" if len(classes) == 2 else "multiclass"
