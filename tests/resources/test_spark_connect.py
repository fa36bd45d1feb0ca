"""Spark Connect is refused by the plan, in a sentence that says what asked for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ml_platform import Spark, dag, task
from ml_platform.errors import ResourceStartError
from ml_platform.resources.spark import open_session
from ml_platform.resources.spark_connect import check_no_connect
from ml_platform.specs.placements import SparkPlacement

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@task
def count(spark: SparkSession = Spark()) -> int:
    return spark.range(3).count()


@dag
def counting() -> int:
    return count()


def test_the_plan_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Java is asked, and before anything starts."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setenv("SPARK_REMOTE", "sc://elsewhere:15002;token=SECRET")
    plan = counting.plan()
    assert plan.nodes[0].verdict == "blocked"
    assert plan.nodes[0].reason == (
        "tasks that use Spark need a classic session; SPARK_REMOTE would make it Spark Connect"
    )


@pytest.mark.parametrize(
    ("placement", "got"),
    [
        (SparkPlacement(master="sc://elsewhere;token=SECRET"), "spark.master sc://…"),
        (SparkPlacement(conf={"spark.remote": "local[2]"}), "spark.remote"),
        (SparkPlacement(conf={"spark.api.mode": "connect"}), "spark.api.mode"),
    ],
)
def test_a_placement_that_asks_for_it_is_named(placement: SparkPlacement, got: str) -> None:
    with pytest.raises(ResourceStartError, match="need a classic session") as caught, open_session(placement):
        pytest.fail("opened")
    assert f"; {got} would make it Spark Connect" in caught.value.what
    assert "SECRET" not in str(caught.value)


def test_a_classic_session_that_is_asked_for_by_name_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    check_no_connect(SparkPlacement(conf={"spark.api.mode": "classic"}))
