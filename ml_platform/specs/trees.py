"""Specs of boosted trees on any table: which columns are what, and what is optimised."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ml_platform.specs.base import Location, Spec
from ml_platform.specs.training import XGBoostSpec

TreeKind = Literal["classifier", "regressor", "ranker"]


class TreeColumns(Spec):
    """Which columns of a table trees learn from."""

    features: tuple[str, ...] = Field(
        min_length=1, description="Numbers and booleans, or one packed column. Empty values stay empty."
    )
    label: str = Field("label", description="Class (0, 1, …), number, or relevance.")
    validation: str | None = Field(
        None, description="Boolean: rows that stop the training early. Empty: no row does."
    )
    weight: str | None = Field(None, description="How much a row counts. Not for rankers.")
    base_margin: str | None = Field(None, description="Prediction to start from, before the link function.")
    query: str | None = Field(None, description="Rows that are ranked among each other. For rankers alone.")

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every column that is read."""
        others = (self.label, self.validation, self.weight, self.base_margin, self.query)
        return (*self.features, *(name for name in others if name is not None))


class RegressionSpec(XGBoostSpec):
    """Boosted trees that predict a number."""

    objective: Literal[
        "reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "count:poisson", "reg:gamma"
    ] = Field("reg:squarederror", description="Loss that trees lower.")


class RankingSpec(XGBoostSpec):
    """Boosted trees that put the rows of a query in order."""

    objective: Literal["rank:ndcg", "rank:map", "rank:pairwise"] = Field(
        "rank:ndcg", description="What the order is measured by."
    )


class BoostedTrees(Spec):
    """Trees that MLflow keeps. `xgboost.Booster(model_file=…)` opens the file."""

    uri: Location = Field(
        description="runs:/<run id>/booster.ubj; mlflow.artifacts.download_artifacts gets it."
    )
    kind: TreeKind
    run_id: str = Field(description="The MLflow run that trained them.")
    digest: str = Field(description="sha256 of the file.")
    features: tuple[str, ...] = Field(description="In the order of the booster's inputs.")
    best_round: int = Field(ge=0, description="Counted from 0; the file holds the rounds up to it.")
    metrics: dict[str, float] = Field(description="Of the best round: train-… and validation-….")
    train_rows: int
    validation_rows: int
