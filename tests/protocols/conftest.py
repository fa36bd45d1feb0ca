"""The stores that the protocol suite runs on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.protocols.stores import LocalStore, S3Server, S3Store, Store, clear

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    try:
        yield server
    finally:
        server.close()
    assert not psutil.pid_exists(server.process.pid)


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """What a person sets, and nothing that is set on this machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store that `data_uri()` names."""
    if request.param == "s3":
        made: Store = S3Store(request.getfixturevalue("s3_environment"))
        monkeypatch.setenv("ML_PLATFORM_STORE", made.uri)
        yield made
        clear(made)
        return
    # Not below pytest's own folder, which is closed to everybody else.
    with tempfile.TemporaryDirectory(prefix="ml-platform-store-") as folder:
        Path(folder).chmod(0o755)
        place = Path(folder) / "tables of ü"
        place.mkdir()
        monkeypatch.setenv("ML_PLATFORM_STORE", str(place))
        yield LocalStore(place)


@pytest.fixture
def spark_at_store(store: Store, spark: SparkSession) -> Iterator[SparkSession]:
    """Spark whose workers, whenever they started, see the environment of now."""
    named = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    environment = spark.sparkContext.environment
    environment.update(named)
    yield spark
    for name in named:
        del environment[name]
