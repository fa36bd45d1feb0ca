"""Specs of a search for good parameters: what may vary, how it is searched, what each trial found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from ml_platform.specs.base import NotIdentity, Spec
from ml_platform.specs.references import ModelFamily

Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["median", "quartile", "none"]
Condition = dict[str, tuple[JsonValue, ...]]


class Range(Spec):
    """Numbers from `low` to `high`, both included. Whole ones where the field that it is for is whole."""

    low: float
    high: float
    log: bool = Field(False, description="Equal shares for equal ratios: 0.001 to 0.01 as for 0.01 to 0.1.")
    step: float | None = Field(None, gt=0, description="Distance of two numbers. A grid needs one.")
    when: Condition = Field({}, description="Asked only where these others have one of these values.")

    @model_validator(mode="after")
    def _has_a_point(self) -> Range:
        if not self.low <= self.high:
            raise ValueError(f"no number lies from {self.low:g} to {self.high:g}")
        if self.log and not self.low > 0:
            raise ValueError(f"a logarithmic range begins above 0, not at {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic range has no step")
        return self


class Choice(Spec):
    """One of some values."""

    values: tuple[JsonValue, ...] = Field(min_length=1)
    when: Condition = Field({}, description="Asked only where these others have one of these values.")


Dimension = Range | Choice


class Space(Spec):
    """What is searched: fields of a family's spec, in the order in which they are asked for."""

    dimensions: dict[str, Dimension]


class StudySpec(Spec):
    """How parameters are searched, for each family by itself.

    Fields that decide which trials there are, and what they know of each other, are no part of its
    identity: the graph says that.
    """

    trials: Annotated[int, NotIdentity()] = Field(
        10, ge=1, le=1_000, description="Trials of each family at most."
    )
    seconds: float | None = Field(
        None,
        gt=0,
        description="Seconds that the search of a family may take: no trial begins after them. "
        "A study that is continued goes on with what is left of them.",
    )
    sampler: Sampler = Field("tpe", description="What picks the next point. grid: every point, no ranges.")
    pruner: Annotated[Pruner, NotIdentity()] = Field(
        "median",
        description="Ends a trial whose validation loss is worse than that of so many others at that step.",
    )
    parallel: Annotated[int, NotIdentity()] = Field(
        2,
        ge=1,
        description="Trials side by side, where a model fits one executor. More know less of each other.",
    )
    seed: int = Field(7, ge=0, description="Seed of the sampler: equal studies ask for equal points.")


class Asked(Spec):
    """The point that a trial shall try. None: there is no further trial, and why."""

    number: Annotated[int, NotIdentity()] = Field(ge=1)
    parameters: dict[str, JsonValue] | None
    reason: str = ""


class Trial(Spec):
    """What one trial found."""

    family: ModelFamily
    parameters: dict[str, JsonValue]
    state: Literal["complete", "pruned", "failed", "not run"]
    value: float | None = Field(None, description="Best validation loss; less is better.")
    metric: str = ""
    curve: tuple[float, ...] = Field((), description="Validation loss by epoch or round.")
    reason: str = Field("", description="Why it was ended, or failed.")
    seconds: float = 0.0
    began: float = Field(0.0, description="Seconds since 1970, UTC.")
    run_id: Annotated[str, NotIdentity()] = Field(
        "", description="The MLflow run inside which the trial has its own, of its family and number."
    )
