"""How many tasks the Spark application of a placement can run at once, said before it is started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_platform.resources.budget import usable_cores
from ml_platform.specs.placements import Placement


def local_cores(master: str, cores: int) -> int:
    """Cores of this machine that a Spark master uses; 0 when its executors are elsewhere.

    >>> local_cores("local[*]", 8), local_cores("local[2,4]", 8), local_cores("spark://host:7077", 8)
    (8, 2, 0)
    """
    if not master.startswith("local"):
        return 0
    inside: Any = master.partition("[")[2].partition("]")[0].partition(",")[0] or "1"
    return cores if inside == "*" else int(inside)


def spark_slots(placement: Placement) -> int | None:
    """Tasks at once: what the placement says, else what its settings amount to. None: nobody can say."""
    spark = placement.spark
    if spark.slots is not None:
        return spark.slots
    cores = local_cores(spark.master, placement.budget.cores or usable_cores()) or _cluster_cores(spark.conf)
    return None if cores is None else cores // int(spark.conf.get("spark.task.cpus", "1"))


def _cluster_cores(conf: Mapping[str, str]) -> int | None:
    if "spark.cores.max" in conf:
        return int(conf["spark.cores.max"])
    if "spark.executor.instances" in conf:
        return int(conf["spark.executor.instances"]) * int(conf.get("spark.executor.cores", "1"))
    return None
