"""Runs on a real Prefect server, one for all tests of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from ml_platform.resources.leases import KINDS
from tests.counters import CounterLease
from tests.engine.runs import FlowRun, Runner


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the results of another."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))


@pytest.fixture
def prefect_api(server: str) -> Iterator[str]:
    with temporary_settings(updates={PREFECT_API_URL: server, PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield server


@pytest.fixture(scope="session")
def flow_run_of_tests(server: str) -> Iterator[FlowRun]:
    with temporary_settings(updates={PREFECT_API_URL: server, PREFECT_LOGGING_TO_API_ENABLED: False}):
        inside = FlowRun()
        try:
            yield inside
        finally:
            inside.close()


@pytest.fixture
def run(flow_run_of_tests: FlowRun, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Run a dag: `run(some_dag, n=1).output`."""
    return Runner(flow_run_of_tests, monkeypatch)


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of the `CounterSpec` resources of a test, in order."""
    monkeypatch.setitem(KINDS, "CounterSpec", "tests.counters:CounterLease")
    CounterLease.happened.clear()
    return CounterLease.happened
