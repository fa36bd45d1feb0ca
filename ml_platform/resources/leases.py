"""Leases: resources opened late, shared by the tasks of a run, closed in reverse order.

Each kind of resource is a class that satisfies `Lease`, in a file of its own; `KINDS` names it by the
type of its recipe and it is imported on first use.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from ml_platform.errors import ResourceStartError
from ml_platform.resources.budget import Budget, Need
from ml_platform.resources.placement import load_placement
from ml_platform.resources.planning import refuse_while_planning
from ml_platform.resources.slots import spark_slots
from ml_platform.specs.placements import Placement
from ml_platform.specs.registry import load_named
from ml_platform.specs.resources import ResourceSpec
from ml_platform.store.location import runs_folder

T = TypeVar("T")
WAKE_S = 0.2

KINDS: dict[str, str] = {
    "SparkSpec": "ml_platform.resources.spark_lease:SparkLease",
    "HorovodSpec": "ml_platform.resources.gang_lease:GangLease",
    "TrackingSpec": "ml_platform.tracking.lease:TrackingLease",
}


@dataclass(frozen=True)
class Scope:
    """For whom resources are held: a flow run, or this process outside of one."""

    name: str
    run: str
    placement: Placement
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where logs and scratch files of this run lie."""
        return runs_folder(self.run)


class Lease(Protocol):
    """One resource, from its first user to its last."""

    to_the_end: ClassVar[bool]
    """Whether it stays open until the run has ended: how the run ended is part of it."""
    prepares: ClassVar[bool]
    """Whether `prepare` begins anything."""

    def __init__(self, spec: ResourceSpec, scope: Scope) -> None: ...

    @classmethod
    def resolve(cls, spec: Any, placement: Placement) -> ResourceSpec:
        """The recipe with its empty fields filled in by the placement."""

    @classmethod
    def key(cls, spec: Any) -> Hashable:
        """Recipes with equal keys share one lease."""

    @classmethod
    def need(cls, spec: Any, placement: Placement) -> Need:
        """What a task uses of the budget while it works with it."""

    @classmethod
    def preflight(cls, spec: Any, placement: Placement) -> None:
        """Raise, in seconds and before anything starts, if it could not be opened here."""

    @classmethod
    def prepare(cls, spec: Any, placement: Placement) -> None:
        """Begin what a process that will open it needs, before it has a run; it ends with the process."""

    def start(self) -> None:
        """Begin to open it, ahead of its first user. Errors wait for that user."""

    def use(self, spec: Any, *, task: str) -> AbstractContextManager[Any]:
        """What a task gets, for as long as the task runs."""

    def cancel(self, task: str | None = None) -> None:
        """Make whoever uses it fail soon, or only this task. From any thread."""

    def close(self, error: BaseException | None = None) -> None:
        """End it; `error` is what ended the run, if anything did. Twice is harmless."""


def opened(starting: Future[T]) -> T:
    """What is being started, once it is there. A task that is stopped meanwhile stops waiting."""
    while not starting.done():
        # A wait without an end could not be interrupted.
        wait([starting], timeout=WAKE_S)
    return starting.result()


def kind_of(spec: ResourceSpec) -> type[Lease]:
    """The class that holds this recipe open."""
    try:
        target = KINDS[type(spec).__name__]
    except KeyError as error:
        raise ResourceStartError(
            f"no lease for recipe {type(spec).__name__}", wanted=", ".join(KINDS)
        ) from error
    kind: type[Lease] = load_named(target)
    return kind


def can_prepare(specs: Iterable[ResourceSpec]) -> bool:
    """Whether anything of these recipes can begin before there is a run."""
    return any(kind_of(spec).prepares for spec in specs)


def prepare(specs: Iterable[ResourceSpec], placement: Placement) -> None:
    """Begin what a run with these recipes will need, while something else keeps it from starting."""
    refuse_while_planning("resources were prepared")
    for spec in specs:
        kind_of(spec).prepare(spec, placement)


class Leases:
    """All resources of one scope, under one budget.

    Attributes:
        stopped: The run was cancelled, or ended because a task failed: nothing is opened any more.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.budget = Budget(scope.placement.budget, slots=spark_slots(scope.placement))
        self._open: dict[Hashable, Lease] = {}
        self._kept: dict[Hashable, Need] = {}
        self._lock = threading.RLock()
        self.stopped = False

    def resolve(self, specs: Mapping[str, ResourceSpec]) -> dict[str, ResourceSpec]:
        """Recipes with their empty fields filled in by the placement."""
        return {name: kind_of(spec).resolve(spec, self.scope.placement) for name, spec in specs.items()}

    def needs(self, specs: Iterable[ResourceSpec]) -> list[Need]:
        """What a task with these recipes uses of the budget."""
        return [kind_of(spec).need(spec, self.scope.placement) for spec in specs]

    def preflight(self, specs: Iterable[ResourceSpec], *, task: str) -> None:
        """Refuse what cannot be opened here, before anything starts."""
        resolved = list(specs)
        self.budget.check(self.needs(resolved), task=task)
        for spec in resolved:
            kind_of(spec).preflight(spec, self.scope.placement)

    def start(self, specs: Iterable[ResourceSpec]) -> None:
        """Begin to open these ahead of their first use, but nothing whose slots others will wait for."""
        refuse_while_planning("resources were opened")
        coming = list(specs)
        needs = self.needs(coming)
        room = self.budget.fits_beside(needs)
        for spec, need in zip(coming, needs, strict=True):
            if room or not need.kept:
                self._lease(spec).start()

    @contextmanager
    def open(self, specs: Mapping[str, ResourceSpec], *, task: str) -> Iterator[dict[str, Any]]:
        """Open (or share) what the recipes name, by parameter, for the duration of one task."""
        if specs:
            refuse_while_planning(f"a resource of {task} was opened")
        resolved = self.resolve(specs)
        with ExitStack() as stack:
            if not _admitted.get():
                stack.enter_context(self.budget.admitted(self.needs(resolved.values())))
            self._make_room()
            yield {
                name: stack.enter_context(self._lease(spec).use(spec, task=task))
                for name, spec in resolved.items()
            }

    def _lease(self, spec: ResourceSpec) -> Lease:
        kind = kind_of(spec)
        key = (kind, kind.key(spec))
        with self._lock:
            if self.stopped:
                raise ResourceStartError(f"run {self.scope.run} was stopped; nothing is opened any more")
            if key not in self._open:
                self._open[key] = kind(spec, self.scope)
                if (need := kind.need(spec, self.scope.placement)).kept:
                    self._kept[key] = need
            return self._open[key]

    def _make_room(self) -> None:
        """Close what is idle and keeps slots that somebody who was admitted needs."""
        gone = []
        with self._lock:
            for key, need in list(self._kept.items()):
                if not self.budget.uses(need) and not self.budget.fits_beside(self._kept.values()):
                    gone.append(self._open.pop(key))
                    del self._kept[key]
        _close(gone)

    def close_unused(self, still_needed: Iterable[ResourceSpec]) -> None:
        """Close what no coming task uses."""
        keep = {(kind_of(spec), kind_of(spec).key(spec)) for spec in still_needed}
        with self._lock:
            unused = [key for key, lease in self._open.items() if key not in keep and not lease.to_the_end]
            gone = [self._open.pop(key) for key in unused]
            self._forget_closed()
        _close(reversed(gone))

    def cancel(self, task: str | None = None) -> None:
        """Make every user of every resource fail soon, and open nothing any more; or only this task.

        Every resource hears of it even if one of them raises.
        """
        with self._lock:
            self.stopped = self.stopped or task is None
            held = list(self._open.values())
        with ExitStack() as stack:
            for lease in reversed(held):
                stack.callback(lease.cancel, task)

    def close(self, error: BaseException | None = None) -> None:
        """Close everything, last opened first. Every resource is closed even if one of them fails to."""
        with self._lock:
            held = [self._open.pop(key) for key in reversed(list(self._open))]
            self._forget_closed()
        _close(held, error)

    def _forget_closed(self) -> None:
        self._kept = {key: need for key, need in self._kept.items() if key in self._open}


def _close(leases: Iterable[Lease], error: BaseException | None = None) -> None:
    with ExitStack() as stack:
        for lease in reversed(list(leases)):
            stack.callback(lease.close, error)


_leases: ContextVar[Leases | None] = ContextVar("leases", default=None)
_admitted: ContextVar[bool] = ContextVar("admitted", default=False)
_of_process: list[Leases] = []
_of_process_lock = threading.Lock()


@contextmanager
def using(leases: Leases, *, admitted: bool = False) -> Iterator[None]:
    """Tasks inside get their resources here. `admitted`: the caller holds their share of the budget."""
    tokens = _leases.set(leases), _admitted.set(admitted)
    try:
        yield
    finally:
        _leases.reset(tokens[0])
        _admitted.reset(tokens[1])


def current_leases() -> Leases:
    """The leases of the run under way; outside of a dag, those of this process, closed at its end."""
    leases = _leases.get()
    if leases is not None:
        return leases
    with _of_process_lock:
        if not _of_process:
            _of_process.append(
                Leases(Scope(name="interactive", run=_process_run(), placement=load_placement()))
            )
            atexit.register(close_process_leases)
        return _of_process[0]


def close_process_leases() -> None:
    """Close what tasks outside of a dag have opened. The next such task opens anew."""
    with _of_process_lock:
        held = [_of_process.pop() for _ in range(len(_of_process))]
    for leases in held:
        leases.close()


def _process_run() -> str:
    import os

    return f"process-{os.getpid()}"
