"""Slots of a Spark application: counted before it starts, shared by name, kept by an idle gang."""

from __future__ import annotations

import pytest

from ml_platform.resources.budget import Budget, Need
from ml_platform.resources.slots import spark_slots
from ml_platform.specs.placements import BudgetSpec, Placement, SparkPlacement

GANG = Need(name="gang", slots=2, exclusive=True, kept=True)
SPARK = Need(name="spark", slots=1)
TREES = Need(name="spark", slots=2)


@pytest.mark.parametrize(
    ("spark", "slots"),
    [
        (SparkPlacement(master="local[3]"), 3),
        (SparkPlacement(master="local[*]"), 4),
        (SparkPlacement(master="local[4]", conf={"spark.task.cpus": "2"}), 2),
        (SparkPlacement(master="spark://h:7077"), None),
        (SparkPlacement(master="spark://h:7077", conf={"spark.cores.max": "6"}), 6),
        (SparkPlacement(master="yarn", conf={"spark.executor.instances": "3"}), 3),
        (
            SparkPlacement(
                master="yarn", conf={"spark.executor.instances": "3", "spark.executor.cores": "4"}
            ),
            12,
        ),
        (SparkPlacement(master="yarn", slots=5, conf={"spark.executor.instances": "3"}), 5),
    ],
)
def test_a_placement_says_how_many_tasks_run_at_once(spark: SparkPlacement, slots: int | None) -> None:
    assert spark_slots(Placement(budget=BudgetSpec(cores=4), spark=spark)) == slots


def test_a_gang_and_spark_work_share_slots_or_take_turns() -> None:
    few, enough = (Budget(BudgetSpec(cores=1, memory_mib=256), slots=slots) for slots in (2, 3))
    assert enough.try_admit([GANG])
    assert enough.try_admit([SPARK])
    assert few.try_admit([GANG])
    assert not few.try_admit([SPARK])
    few.release([GANG])
    assert few.try_admit([SPARK])


def test_users_of_one_application_share_its_slots_and_the_largest_wish_counts() -> None:
    budget = Budget(BudgetSpec(cores=1, memory_mib=256), slots=3)
    assert budget.try_admit([SPARK])
    assert budget.fits_beside([GANG])
    assert budget.try_admit([TREES])
    assert not budget.fits_beside([GANG])


def test_slots_that_nobody_knows_limit_nothing() -> None:
    budget = Budget(BudgetSpec(cores=1, memory_mib=256))
    assert budget.try_admit([GANG])
    assert budget.try_admit([TREES])
