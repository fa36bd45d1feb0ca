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
    gpu: bool = Field(False, description="Executors have a GPU each, and each of their tasks takes it.")
    conf: dict[str, str] = Field({}, description="Settings of the application (spark.…).")
    slots: int | None = Field(
        None, ge=1, description="Tasks at once. Empty: from the master, or spark.cores.max, or the executors."
    )
    python: str | None = Field(
        None, description="Interpreter on executors. Empty: that of `environment`, or else this one."
    )
    environment: str | None = Field(
        None, description="Archive that `make pack` built: a path or URI that executors can read."
    )


class HorovodPlacement(Spec):
    """The gang of a run, where a task does not say."""

    backend: Backend = "processes"
    ranks: int = Field(2, ge=1)
    threads: int = Field(1, ge=1, description="Cores of each rank. On Spark, `spark.task.cpus` says so too.")
    gpu: bool = Field(False, description="Each rank has a GPU of its own, and NCCL joins them.")
    memory_mib_per_rank: int = Field(1024, ge=256)
    network: str = Field(
        "127.0.0.0/8", description="Backend spark: every machine uses its address in this network."
    )
    port: int = Field(0, ge=0, le=65535, description="Backend spark: where the driver listens. 0: any.")
    unencrypted: bool = Field(
        False, description="Backend spark: train although Spark encrypts its own traffic and ranks cannot."
    )
    max_age_s: float = Field(3600, gt=0, description="Older ranks are replaced before their next job.")
    max_memory_mib: int = Field(
        4096, ge=256, description="A rank that holds more between jobs is replaced before the next one."
    )


class Placement(Spec):
    """Everything about a place. `local` is the default; others are YAML files in deployments/placements."""

    name: str = "local"
    budget: BudgetSpec = BudgetSpec()
    spark: SparkPlacement = SparkPlacement()
    horovod: HorovodPlacement = HorovodPlacement()
