"""What every test has: a platform folder of its own, and one Spark application for all that ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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

    # The JVM of a test is never warm: its second compiler would cost more than it gives.
    conf = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    placement = SparkPlacement(master="local[2]", driver_memory_mib=1024, conf=conf)
    with open_session(placement) as session:
        yield session


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole flows first: with two workers, nothing long is left for the end."""
    items.sort(key=lambda item: "/scenarios/" not in str(item.path))
