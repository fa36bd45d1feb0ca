"""A real Prefect server for the engine's tests, one for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from ml_platform.engine.server import TemporaryServer
from ml_platform.resources.budget import Need
from ml_platform.resources.leases import KINDS, Scope
from ml_platform.specs.placements import Placement
from ml_platform.specs.resources import ResourceSpec


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    running = TemporaryServer()
    try:
        yield running.url()
    finally:
        running.stop()


@pytest.fixture
def prefect_api(server: str) -> Iterator[str]:
    with temporary_settings(updates={PREFECT_API_URL: server, PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield server


class CounterSpec(ResourceSpec):
    """A resource for tests: hands out a list, and remembers what happened to it."""

    name: str = "a"
    cores: int = 0


class CounterLease:
    to_the_end = False
    happened: ClassVar[list[str]] = []

    def __init__(self, spec: CounterSpec, scope: Scope) -> None:
        self.name = spec.name
        self.happened.append(f"opened {self.name}")

    @classmethod
    def resolve(cls, spec: CounterSpec, placement: Placement) -> CounterSpec:
        return spec

    @classmethod
    def key(cls, spec: CounterSpec) -> str:
        return spec.name

    @classmethod
    def need(cls, spec: CounterSpec, placement: Placement) -> Need:
        return Need(name=spec.name, cores=spec.cores)

    @classmethod
    def preflight(cls, spec: CounterSpec, placement: Placement) -> None: ...

    def start(self) -> None: ...

    @contextmanager
    def use(self, spec: CounterSpec, *, task: str) -> Iterator[list[str]]:
        self.happened.append(f"{task} uses {self.name}")
        yield self.happened

    def cancel(self) -> None:
        self.happened.append(f"cancelled {self.name}")

    def close(self, error: BaseException | None = None) -> None:
        self.happened.append(f"closed {self.name}")


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of the `CounterSpec` resources of a test, in order."""
    monkeypatch.setitem(KINDS, "CounterSpec", f"{__name__}:CounterLease")
    CounterLease.happened = []
    return CounterLease.happened
