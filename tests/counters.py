"""A resource for tests: real leases of a kind that only remembers what happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from ml_platform.resources.budget import Need
from ml_platform.resources.leases import Scope
from ml_platform.specs.placements import Placement
from ml_platform.specs.resources import ResourceSpec


class CounterSpec(ResourceSpec):
    name: str = "a"
    cores: int = 0
    breaks: bool = False


class CounterLease:
    to_the_end = False
    prepares = True
    happened: ClassVar[list[str]] = []

    def __init__(self, spec: CounterSpec, scope: Scope) -> None:
        self.name, self.breaks = spec.name, spec.breaks
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

    @classmethod
    def prepare(cls, spec: CounterSpec, placement: Placement) -> None: ...

    def start(self) -> None: ...

    @contextmanager
    def use(self, spec: CounterSpec, *, task: str) -> Iterator[list[str]]:
        self.happened.append(f"{task} uses {self.name}")
        yield self.happened

    def cancel(self, task: str | None = None) -> None:
        self.happened.append(f"cancelled {self.name}")

    def close(self, error: BaseException | None = None) -> None:
        self.happened.append(f"closed {self.name}")
        if self.breaks:
            raise OSError(f"{self.name} did not close")
