"""What every test has: a folder of its own, and one Spark session and one Prefect server for all that ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from ml_platform.resources.gpus import visible_gpus

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A busy machine is no failure, and the same examples each time make no test red that was green.
settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

HEAVY = ("horovod", "spark", "slow")
"""Markers of long files, the longest first."""


@pytest.fixture(scope="session", autouse=True)
def platform_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test writes lands in the person's own folder or store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_PLATFORM_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("ML_PLATFORM_STORE", raising=False)
        yield


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """Two cores, 1 GiB, UTC, loopback only, no UI."""
    from ml_platform.resources.spark import open_session
    from ml_platform.specs.placements import SparkPlacement

    # The JVM of a test is never warm: its second compiler would cost more than it gives. Nor are rows many.
    conf = {
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.shuffle.partitions": "4",
    }
    placement = SparkPlacement(master="local[2]", driver_memory_mib=1024, conf=conf)
    with open_session(placement) as session:
        yield session


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """URL of a Prefect server's API."""
    from ml_platform.engine.server import TemporaryServer

    running = TemporaryServer()
    try:
        yield running.url()
    finally:
        running.stop()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with MLflow's tables: made once (about ten seconds) and copied for each test."""
    from ml_platform.tracking import check_tracking

    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_PLATFORM_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        check_tracking()
    return folder / "mlflow.db"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files by what they start: with two workers, nothing long is left for the end."""
    weights: dict[Path, int] = {}
    for item in items:
        weights[item.path] = max(weights.get(item.path, 0), _weight(item))
    items.sort(key=lambda item: -weights[item.path])
    of_gpus = [item for item in items if item.get_closest_marker("gpu")]
    if of_gpus and not visible_gpus():
        for item in of_gpus:
            item.add_marker(pytest.mark.skip(reason="no GPU here"))


def _weight(item: pytest.Item) -> int:
    if item.path.parent.name == "scenarios":
        return len(HEAVY) + 1
    return next((len(HEAVY) - at for at, mark in enumerate(HEAVY) if item.get_closest_marker(mark)), 0)
