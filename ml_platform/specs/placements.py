"""Placements: where things run. Values only; no flow knows which one is active."""

from __future__ import annotations

from pydantic import Field

from ml_platform.specs.base import Spec
from ml_platform.specs.resources import Backend


class BudgetSpec(Spec):
    """What one run may use at once. Empty fields are read off the machine."""

    cores: int | None = Field(None, ge=1)
    memory_mib: int | None = Field(None, ge=256)
    gpus: int | None = Field(None, ge=0)


class SparkPlacement(Spec):
    """The Spark application of a run."""

    master: str = "local[*]"
    driver_memory_mib: int = Field(2048, ge=512)
    conf: dict[str, str] = Field({}, description="Settings of the application (spark.…).")


class HorovodPlacement(Spec):
    """The gang of a run, where a task does not say."""

    backend: Backend = "processes"
    ranks: int = Field(2, ge=1)
    memory_mib_per_rank: int = Field(1024, ge=256)


class Placement(Spec):
    """Everything about a place. `local` is the default; others are YAML files in deployments/placements."""

    name: str = "local"
    budget: BudgetSpec = BudgetSpec()
    spark: SparkPlacement = SparkPlacement()
    horovod: HorovodPlacement = HorovodPlacement()
