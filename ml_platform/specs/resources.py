"""Recipes of resources: what a task needs held open while it runs.

A recipe is a task's default argument; the engine opens it, hands the opened thing to the task, shares
it between compatible tasks and closes it. `Spark()` is typed `Any` so that `spark: SparkSession =
Spark()` satisfies a type checker, as `Depends` does in FastAPI.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field

from ml_platform.errors import nearest
from ml_platform.specs.base import NotIdentity, Spec


class BackendRow(NamedTuple):
    """What must be known of a backend before its ranks start.

    Attributes:
        start: `module:function`, which takes a `LaunchPlan` and starts its job. Imported on first use.
        place: Where ranks are, and so what they use: one in the flow's own process; cores of this machine;
            or slots of the Spark application.
    """

    start: str
    place: Literal["process", "machine", "spark"]


BACKENDS: dict[str, BackendRow] = {
    "in_process": BackendRow("ml_platform.resources.horovod.in_process:start_job", "process"),
    "processes": BackendRow("ml_platform.resources.horovod.processes:start_job", "machine"),
    "spark": BackendRow("ml_platform.resources.horovod.spark_stage:start_job", "spark"),
}
"""Every backend of `HorovodJob`, by name. A new one is a row here and a file."""


def _known(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"no Horovod backend {name!r}; {nearest(name, BACKENDS)}")
    return name


Backend = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(BACKENDS)})]


class ResourceSpec(Spec):
    """Base of all recipes. Fields marked `NotIdentity` change where or how long, not what a task computes."""


class SparkSpec(ResourceSpec):
    """A Spark session of its own per task, in the one Spark application of the run."""

    conf: dict[str, str] = Field({}, description="Session settings (spark.sql.…) of this task alone.")
    slots: Annotated[int, NotIdentity()] = Field(
        1, ge=1, description="Tasks that must be able to run at once: the workers of a barrier stage."
    )


class HorovodSpec(ResourceSpec):
    """A gang of ranks that train together."""

    ranks: int | None = Field(None, ge=1, description="Ranks. Empty: as the placement says.")
    backend: Annotated[Backend | None, NotIdentity()] = Field(
        None, description="Where ranks run. Empty: as the placement says."
    )
    gpu: bool | None = Field(None, description="A GPU for each rank. Empty: as the placement says.")
    start_timeout_s: Annotated[float, NotIdentity()] = Field(
        120, gt=0, description="Seconds until every rank must have registered."
    )
    heartbeat_timeout_s: Annotated[float, NotIdentity()] = Field(
        30, gt=0, description="Seconds of silence that make a rank hung."
    )
    timeline: Annotated[bool, NotIdentity()] = Field(
        False, description="Write Horovod's timeline: which tensor waited for which rank. Costs some speed."
    )
    max_restarts: Annotated[int, NotIdentity()] = Field(
        0, ge=0, description="How often ranks start again within one job, after one of them was lost."
    )


class TrackingSpec(ResourceSpec):
    """The MLflow run of this flow run, or a run of the task's own nested in it."""

    nested: Annotated[bool, NotIdentity()] = Field(
        False, description="A run of its own, named after the task, inside the flow's run."
    )


def Spark(**settings: Any) -> Any:  # noqa: N802  (reads like the type it injects)
    """Recipe of a `pyspark.sql.SparkSession`; fields of `SparkSpec`."""
    return SparkSpec(**settings)


def Horovod(**settings: Any) -> Any:  # noqa: N802
    """Recipe of a `HorovodJob`; fields of `HorovodSpec`."""
    return HorovodSpec(**settings)


def Tracking(**settings: Any) -> Any:  # noqa: N802
    """Recipe of a `TrackingRun`; fields of `TrackingSpec`."""
    return TrackingSpec(**settings)
