"""Specs of the data side: how a table is split and turned into features."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ml_platform.specs.base import Spec
from ml_platform.specs.problems import NumericTarget, ProblemKind, kind_of


class SplitSpec(Spec):
    """How rows are dealt into train, validation and holdout.

    A row's part depends on its own key alone, so rows keep their part when others are added.
    """

    key_columns: tuple[str, ...] = Field(
        (), title="Key columns", description="Columns that identify a row. Empty: all columns but the label."
    )
    group: str | None = Field(
        None, title="Group column", description="Rows with the same value stay in the same part."
    )
    validation: float = Field(0.15, gt=0, lt=1, description="Share of rows that choose among models.")
    holdout: float = Field(0.25, gt=0, lt=1, description="Share of rows that are read once, by the gate.")
    salt: str = Field("ml-platform", description="Another salt deals the rows anew.")

    @model_validator(mode="after")
    def _leaves_rows_to_train(self) -> SplitSpec:
        if self.validation + self.holdout >= 0.9:
            raise ValueError(
                f"validation + holdout = {self.validation + self.holdout:g}: too little is left to train"
            )
        return self


class FeatureSpec(Spec):
    """How raw columns become features. Fitted on the training part alone."""

    impute: Literal["median", "mean", "zero"] = Field(
        "median", description="What stands for an empty numeric value."
    )
    scale: Literal["standard", "none"] = Field(
        "standard", description="standard: subtract the mean, divide by the standard deviation."
    )
    vocabulary: int = Field(
        256, ge=1, le=100_000, description="Most frequent values kept per category; others share one bucket."
    )
    drop: tuple[str, ...] = Field((), description="Columns that the models must not see.")


class NumericFeature(Spec):
    """Fitted state of a numeric column: `(x or fill - center) / scale`, one feature."""

    name: str
    fill: float
    center: float
    scale: float = Field(gt=0)


class CategoryFeature(Spec):
    """Fitted state of a category: one-hot over `values`, then an unknown bucket, then a missing one."""

    name: str
    values: tuple[str, ...]


class FeatureState(Spec):
    """Everything that turns raw rows into features: readable JSON, travels inside the model."""

    numeric: tuple[NumericFeature, ...] = ()
    categories: tuple[CategoryFeature, ...] = ()
    classes: tuple[str, ...] = Field(
        description="Class names in the order of the model's outputs. Empty: the label is a number."
    )
    class_counts: tuple[int, ...] = Field(description="Rows of each class in the training part.")
    target: NumericTarget | None = Field(None, description="Of a label that is a number.")
    label: str

    @property
    def problem(self) -> ProblemKind:
        """What is predicted."""
        return kind_of(self.classes)

    @property
    def outputs(self) -> int:
        """Values that a model gives per row: a probability per class, or one number."""
        return max(1, len(self.classes))

    @property
    def width(self) -> int:
        """Features per row."""
        return len(self.numeric) + sum(len(category.values) + 2 for category in self.categories)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per feature: of a number its column's, of a category `column=value`."""
        numbers = tuple(feature.name for feature in self.numeric)
        return numbers + tuple(
            f"{category.name}={value}"
            for category in self.categories
            for value in (*category.values, "(unknown)", "(missing)")
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Raw columns that are read, without the label."""
        return tuple(f.name for f in self.numeric) + tuple(f.name for f in self.categories)
