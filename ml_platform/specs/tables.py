"""Specs of the data side: how a table is split and turned into features."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ml_platform.specs.base import Spec
from ml_platform.specs.problems import NumericTarget, ProblemKind, kind_of


class SplitSpec(Spec):
    """How rows are dealt into train, validation and holdout.

    A row's part depends on its own key alone, so rows keep their part when others are added. Without key
    columns the key is the whole row but its label: then a corrected cell may move its row to another part,
    and a further column deals all rows anew. With key columns, or a group, neither does.

    With `time`, the latest rows are the holdout, those before them validation, and the rest, with those
    that have no time, train. Cuts by share move when rows are added; cuts by date do not.
    """

    key_columns: tuple[str, ...] = Field(
        (), title="Key columns", description="Columns that identify a row. Empty: all columns but the label."
    )
    group: str | None = Field(
        None, title="Group column", description="Rows with the same value stay in the same part."
    )
    time: str | None = Field(
        None, title="Time column", description="A date or timestamp: parts follow each other in time."
    )
    validation_from: dt.datetime | None = Field(
        None, description="First moment of the validation part, in UTC. Empty: by the shares."
    )
    holdout_from: dt.datetime | None = Field(None, description="First moment of the holdout, in UTC.")
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

    @field_validator("validation_from", "holdout_from")
    @classmethod
    def _in_utc(cls, moment: dt.datetime | None) -> dt.datetime | None:
        if moment is None:
            return None
        return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)

    @model_validator(mode="after")
    def _cuts_in_time_fit(self) -> SplitSpec:
        if self.time is not None and (self.group is not None or self.key_columns):
            raise ValueError("rows are cut by time, or dealt by a group or key columns: not both")
        if (self.validation_from is None) != (self.holdout_from is None):
            raise ValueError("validation_from and holdout_from are given together")
        if self.validation_from is not None and self.holdout_from is not None:
            if self.time is None:
                raise ValueError("dates cut a split by time: name its column in `time`")
            if self.validation_from >= self.holdout_from:
                raise ValueError("validation_from is before holdout_from")
        return self

    @property
    def apart(self) -> str | None:
        """The one column whose values lie in one part each: the group, or a key column that stands alone.

        What is learnt of a value says nothing of the other parts' values. Several key columns identify a row
        together, and the values of each may lie in every part.

        >>> SplitSpec(group="patient").apart, SplitSpec(key_columns=("shop", "day")).apart
        ('patient', None)
        """
        return self.group or (self.key_columns[0] if len(self.key_columns) == 1 else None)


Treatment = Literal["number", "time", "category", "text", "target"]
"""What a column becomes. Which ones fit a column's type: `ml_platform.features.treatments`."""

TextPieces = Literal["words", "characters", "both"]
TimePart = Literal["year", "month", "day", "weekday", "hour"]


class ColumnFeatures(Spec):
    """How one column differs from the rest. What is empty is as for all columns."""

    treat: Treatment | None = Field(None, description="What the column becomes. Empty: as its type says.")
    impute: Literal["median", "mean", "zero"] | None = Field(None, description="As for all columns.")
    scale: Literal["standard", "robust", "none"] | None = Field(None, description="As for all columns.")
    log: Literal["skewed", "always", "never"] | None = Field(None, description="As for all columns.")
    vocabulary: int | None = Field(None, ge=1, le=100_000, description="As for all columns.")
    hash_above: int | None = Field(None, ge=1, description="As for all columns.")
    buckets: int | None = Field(
        None, ge=2, le=4096, description="Of a category: as for all columns. Of a text: as `text_buckets`."
    )
    pieces: TextPieces | None = Field(None, description="As `text_pieces` for all columns.")


class FeatureSpec(Spec):
    """How raw columns become features. Fitted on the training part alone."""

    impute: Literal["median", "mean", "zero"] = Field(
        "median", description="What stands for an empty numeric value."
    )
    scale: Literal["standard", "robust", "none"] = Field(
        "standard",
        description="standard: subtract the mean, divide by the standard deviation. robust: median and "
        "interquartile range; the standard deviation where that range is 0.",
    )
    log: Literal["skewed", "always", "never"] = Field(
        "skewed",
        description="Numbers as sign(x) log(1 + |x|). skewed: where the skewness is beyond 2, and less than "
        "half as far from 0 afterwards.",
    )
    missing_flag: bool = Field(
        True, description="One more feature for each number or time that is empty in some training row."
    )
    vocabulary: int = Field(
        256, ge=1, le=100_000, description="Most frequent values kept per category; others share one bucket."
    )
    hash_above: int = Field(
        1_000,
        ge=1,
        description="Of a category with more values, those outside of the vocabulary are dealt over buckets.",
    )
    buckets: int = Field(64, ge=2, le=4096, description="Buckets for such values of a category.")
    target_folds: int = Field(
        5,
        ge=2,
        le=20,
        description="Of a category treated as target: a training row learns from the labels of other folds.",
    )
    target_smoothing: float = Field(
        20.0, gt=0, description="Rows of the whole that each of its values is mixed with."
    )
    text_buckets: int = Field(256, ge=2, le=4096, description="Features per text: buckets for its pieces.")
    text_pieces: TextPieces = Field(
        "words", description="words and pairs of words, runs of 3 characters, or both."
    )
    interactions: tuple[tuple[str, str], ...] = Field(
        (),
        title="Interactions",
        description="Pairs of columns whose features are multiplied with each other; once per pair.",
    )
    drop: tuple[str, ...] = Field((), description="Columns that the models must not see.")
    columns: dict[str, ColumnFeatures] = Field(
        {}, title="Columns", description="Columns that are treated in another way, by name."
    )

    @field_validator("interactions", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        # A command line gives names one after the other.
        names = list(value) if isinstance(value, list | tuple) else []
        if names and all(isinstance(name, str) for name in names):
            if len(names) % 2:
                raise ValueError(f"{names[-1]!r} has no partner: interactions are pairs of columns")
            return list(zip(names[::2], names[1::2], strict=True))
        return value


class NumericFeature(Spec):
    """Fitted state of a number: `(x or fill - center) / scale`, then whether x was missing."""

    name: str
    fill: float
    log: bool = Field(False, description="Whether sign(x) log(1 + |x|) stands for x, before it is scaled.")
    center: float
    scale: float = Field(gt=0)
    missing_flag: bool = False

    @property
    def width(self) -> int:
        return 1 + self.missing_flag

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (self.name, f"{self.name}=(missing)")[: self.width]


class TimeFeature(Spec):
    """Fitted state of a date or timestamp, in UTC.

    The year as a number, the other parts as sine and cosine of their place on the circle, then the age in
    days on the reference day, then whether it was missing. All but the last are 0 where it is.
    """

    name: str
    parts: tuple[TimePart, ...] = Field(description="Parts that differ between training rows.")
    year_center: float = 0.0
    year_scale: float = Field(1.0, gt=0)
    reference: dt.date = Field(description="The latest day of the training rows, to a part in 500.")
    age_center: float
    age_scale: float = Field(gt=0)
    missing_flag: bool = False

    @property
    def width(self) -> int:
        return 2 * len(self.parts) - ("year" in self.parts) + 1 + self.missing_flag

    @property
    def feature_names(self) -> tuple[str, ...]:
        names = [
            f"{self.name}.{part}{wave}"
            for part in self.parts
            for wave in ([""] if part == "year" else [".sin", ".cos"])
        ]
        flag = [f"{self.name}=(missing)"] if self.missing_flag else []
        return (*names, f"{self.name}.age_days", *flag)


class CategoryFeature(Spec):
    """Fitted state of a category: one-hot over `values`, then over the buckets of others, then missing.

    With one bucket, that is where every unknown value goes; with more, a stable hash deals them.
    """

    name: str
    values: tuple[str, ...]
    buckets: int = Field(1, ge=1)

    @property
    def width(self) -> int:
        return len(self.values) + self.buckets + 1

    @property
    def feature_names(self) -> tuple[str, ...]:
        many = tuple(f"(bucket {at})" for at in range(self.buckets))
        others = many if self.buckets > 1 else ("(unknown)",)
        return tuple(f"{self.name}={value}" for value in (*self.values, *others, "(missing)"))


class TextFeature(Spec):
    """State of a text: how often its pieces fall into each bucket, as a vector of length 1; then missing."""

    name: str
    buckets: int = Field(ge=2)
    pieces: TextPieces

    @property
    def width(self) -> int:
        return self.buckets + 1

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (*(f"{self.name}~{at}" for at in range(self.buckets)), f"{self.name}=(missing)")


class TargetFeature(Spec):
    """Fitted state of a category by its labels: per value a mean over rows, drawn to `prior` by smoothing.

    One feature per class (of two classes the second alone), or the mean of the standardised number. Unknown
    and missing values are the prior. Rows that this was fitted on get the mean without their own fold.
    """

    name: str
    values: tuple[str, ...]
    outputs: tuple[str, ...]
    prior: tuple[float, ...]
    smoothing: float = Field(gt=0, description="Rows of the prior that each mean is mixed with.")
    unit: float = Field(1.0, gt=0, description="What one counts in `sums`.")
    rows: tuple[tuple[int, ...], ...] = Field(description="Per fold, of each value.")
    sums: tuple[tuple[tuple[int, ...], ...], ...] = Field(description="Per fold and output, of each value.")

    @property
    def folds(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        return len(self.outputs)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}→{output}" for output in self.outputs)


class Interaction(Spec):
    """Each feature of one column times each of another.

    With `buckets`, of two categories whose products would be too many: the pair of values is dealt by hash.
    """

    left: str
    right: str
    buckets: int | None = None


Feature = NumericFeature | TimeFeature | CategoryFeature | TextFeature | TargetFeature


class FeatureState(Spec):
    """Everything that turns raw rows into features: readable JSON, travels inside the model."""

    numeric: tuple[NumericFeature, ...] = ()
    times: tuple[TimeFeature, ...] = ()
    categories: tuple[CategoryFeature, ...] = ()
    texts: tuple[TextFeature, ...] = ()
    targets: tuple[TargetFeature, ...] = ()
    fitted_on: str = Field("", description="Fingerprint of the training part, where `targets` need it.")
    interactions: tuple[Interaction, ...] = ()
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
    def features(self) -> tuple[Feature, ...]:
        """Of each column, in the order of the features of a row."""
        return (*self.numeric, *self.times, *self.categories, *self.texts, *self.targets)

    @property
    def balanced_weights(self) -> tuple[float, ...]:
        """Per class, what a row of it counts so that all classes count alike and rows count 1 on average."""
        rows = sum(self.class_counts)
        return tuple(rows / (len(self.classes) * count) for count in self.class_counts)

    @property
    def width(self) -> int:
        """Features per row."""
        widths = {feature.name: feature.width for feature in self.features}
        products = (each.buckets or widths[each.left] * widths[each.right] for each in self.interactions)
        return sum(feature.width for feature in self.features) + sum(products)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per feature: of a number its column's, of a category `column=value`."""
        names = {feature.name: feature.feature_names for feature in self.features}
        single = tuple(name for each in names.values() for name in each)
        return single + tuple(
            name
            for each in self.interactions
            for name in (
                [f"{each.left} × {each.right}=(bucket {at})" for at in range(each.buckets)]
                if each.buckets
                else [f"{left} × {right}" for left in names[each.left] for right in names[each.right]]
            )
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Raw columns that are read, without the label."""
        return tuple(feature.name for feature in self.features)
