"""Resume: a plan against an earlier run, under the present code.

What is still valid is found by its key, as in any run. What completed then and has no valid key now is
doubtful: it runs again, or is reused only where the user says so.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prefect.exceptions import ParameterTypeError
from pydantic import SecretStr, ValidationError

from ml_platform.engine.graph import Graph
from ml_platform.engine.keys import digest_of, value_digest
from ml_platform.engine.outputs import adapter
from ml_platform.engine.plan import EngineSpec, Plan
from ml_platform.errors import PlatformError, SpecError, StoreError, UsageError, nearest
from ml_platform.store.records import read_run
from ml_platform.store.results import Result
from ml_platform.store.stamps import locations, stamp

if TYPE_CHECKING:
    from ml_platform.engine.dag import Dag

MASK = str(SecretStr("secret"))
COMPLETED = ("completed", "cached")


def chain(engine: EngineSpec) -> tuple[str, ...]:
    """Names of the run to resume, of the one that it resumed, and so on."""
    names: tuple[str, ...] = ()
    run = engine.run
    while run is not None and run not in names:
        names += (run,)
        with suppress(PlatformError):  # its record is gone, or damaged
            run = (read_run(run).get("engine") or {}).get("run")
    return names


def resumed_parameters(dag: Dag[..., Any], engine: EngineSpec) -> dict[str, Any]:
    """Parameters of the run to resume, with `engine.overrides` in place.

    Raises:
        SpecError: There is no such run, it is of another dag, or a parameter does not exist any more.
    """
    record = read_run(_run(engine))
    if record.get("dag") != dag.name:
        raise SpecError(f"run {engine.run} is not of {dag.name}", got=f"a run of {record.get('dag')}")
    parameters = copy.deepcopy(record.get("parameters") or {})
    for path, value in engine.overrides.items():
        _set(parameters, path, value)
    secret = [name for name, value in parameters.items() if MASK in str(value)]
    if secret:
        raise SpecError(
            f"run {engine.run} was given secrets, which no record keeps",
            got=f"parameter {', '.join(secret)}",
            hint="start a new run with them: what is stored is reused all the same",
        )
    try:
        return dag.with_defaults(parameters)
    except (ParameterTypeError, ValidationError, TypeError, ValueError) as error:
        raise SpecError(
            f"the parameters of run {engine.run} do not fit {dag.name} any more", got=error
        ) from error


def accepted_results(graph: Graph, engine: EngineSpec) -> dict[str, Result]:
    """Outputs of the earlier run that the user accepts, by node.

    Raises:
        SpecError: One did not complete then, does not fit its type now, or what it refers to is gone.
        StoreError: Somebody has edited it since.
    """
    if engine.run is None:
        return {}
    then = _completed(engine)
    members = [name for asked in engine.accept for name in _members(graph, asked, then)]
    return {name: _result(graph, name, then.get(name), engine) for name in members}


def _members(graph: Graph, asked: str, then: Mapping[str, Any]) -> list[str]:
    """What a mapped node became in that run; any other name as it is."""
    return [name for name in then if name != asked and graph.declared(name) == asked] or [asked]


def refuse_doubtful(graph: Graph, plan: Plan, engine: EngineSpec) -> None:
    """With `from_task`, everything before it should be reused: refuse if that cannot be vouched for.

    Raises:
        UsageError: Names every doubtful result with the reason.
    """
    if engine.run is None or engine.from_task is None:
        return
    again = set().union(*(graph.downstream(name) for name in graph.named(engine.from_task)))
    then = _completed(engine)
    doubtful = [
        f"{node.name}: {node.reason}"
        for node in plan.nodes
        if node.verdict in ("run", "maybe") and node.name in then and graph.declared(node.name) not in again
    ]
    if doubtful:
        names = " ".join(line.partition(":")[0] for line in doubtful)
        raise UsageError(
            f"resuming {engine.run} from {engine.from_task} would reuse what may be out of date",
            evidence="\n".join(doubtful),
            hint=f"leave --from out, and these run again; or reuse them as they are: --accept {names}",
        )


def _run(engine: EngineSpec) -> str:
    if engine.run is None:
        raise SpecError("engine.mode is `resume`, but engine.run names no run")
    return engine.run


def _completed(engine: EngineSpec) -> dict[str, Mapping[str, Any]]:
    nodes = read_run(_run(engine))["nodes"]
    return {node["node"]: node for node in nodes if node.get("state") in COMPLETED}


def _result(graph: Graph, name: str, then: Mapping[str, Any] | None, engine: EngineSpec) -> Result:
    declared = graph.declared(name)
    if then is None or declared not in graph:
        known = [node for node in _completed(engine) if graph.declared(node) in graph]
        raise SpecError(f"{name!r} did not complete in run {engine.run}", hint=nearest(name, known))
    type_ = adapter(graph[declared].task.output_type)
    try:
        value = type_.validate_json(adapter(Any).dump_json(then.get("output")), strict=True)
    except ValidationError as error:
        raise SpecError(
            f"the output of {name} in run {engine.run} is not of its type any more", got=error
        ) from error
    identity = value_digest(value)
    if then.get("identity") not in ("", identity):
        raise StoreError(
            f"the output of {name} in the record of run {engine.run} is not what was written",
            wanted=f"a value with the identity {then.get('identity')}",
            got=identity,
            hint="leave it out of --accept, and it runs again",
        )
    stamps = {uri: stamp(uri) for uri in locations(value)}
    gone = [uri for uri, found in stamps.items() if found is None]
    if gone:
        raise SpecError(f"the output of {name} in run {engine.run} is gone", got=", ".join(gone))
    nothing = digest_of("")
    return Result(
        own=then.get("own") or nothing,
        inputs=then.get("inputs") or nothing,
        dag=graph.name,
        node=name,
        task=graph[declared].function,
        run=_run(engine),
        output=then.get("output"),
        identity=identity,
        stamps={uri: found or "" for uri, found in stamps.items()},
        parts={},
        seconds=then.get("seconds", 0.0),
        created=str(then.get("ended", "")),
    )


def _set(parameters: dict[str, Any], path: str, value: Any) -> None:
    """Set `keras.rate`, say."""
    *owners, last = path.split(".")
    current = parameters
    for name in owners:
        if not isinstance(current.get(name), dict):
            raise SpecError(f"there is no parameter {path!r}", hint=nearest(name, current))
        current = current[name]
    if not owners and last not in current:
        raise SpecError(f"there is no parameter {path!r}", hint=nearest(last, current))
    current[last] = value
