"""A flow run of a dag: declare, plan, and then run the plan, or only show it."""

from __future__ import annotations

import base64
import gc
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from ml_platform.engine.check import refuse
from ml_platform.engine.decide import World
from ml_platform.engine.events import current_watcher
from ml_platform.engine.going_on import going_on
from ml_platform.engine.graph import Graph, Node, Reference, fill
from ml_platform.engine.guard import trapped
from ml_platform.engine.keys import as_declared
from ml_platform.engine.picture import to_svg
from ml_platform.engine.plan import EngineSpec, Plan, Planned, make_plan
from ml_platform.engine.prefect_door import flush, heeding_cancellation
from ml_platform.engine.resume import accepted_results, chain, refuse_doubtful, resumed_parameters
from ml_platform.engine.run import Execution
from ml_platform.engine.secret_blocks import secrets_of_prefect
from ml_platform.errors import PlatformError, SpecError, StoreError, nearest
from ml_platform.resources.leases import Leases, Scope, can_prepare, prepare
from ml_platform.resources.placement import load_placement
from ml_platform.resources.planning import at_work, planning
from ml_platform.resources.process_wide import while_anyone
from ml_platform.store.history import add_to_history, read_history
from ml_platform.store.leftovers import sweep, temporary_files_removed
from ml_platform.store.occupancy import occupied
from ml_platform.store.records import RunRecord, record_name
from ml_platform.store.results import Results

if TYPE_CHECKING:
    from ml_platform.engine.dag import Dag

FLUSH_S = 5.0
SHOWN_NODES = 200
"""Larger graphs leave no picture."""


def plan(
    dag: Dag[..., Any], parameters: Mapping[str, Any], engine: EngineSpec, *, ahead: bool = False
) -> Planned:
    """Plan a run. Nothing runs: our doors are closed, and what the dag's function tries is trapped.

    Args:
        ahead: The run follows in this process: what it will surely need may begin.
    """
    with _seldom_searched(), planning(), as_declared(), secrets_of_prefect(), going_on(chain(engine)):
        graph, world, leases = _to_plan(dag, parameters, engine)
        planned = _planned_ahead(graph, world, leases) if ahead else make_plan(graph, world, leases)
        refuse_doubtful(graph, planned.plan, engine)
        return planned


def plan_first(dag: Dag[..., Any], parameters: Mapping[str, Any], engine: EngineSpec) -> Planned:
    """Plan those tasks alone that need no other and have a preflight: what a request itself gets wrong shows
    there, before all code was read and everybody was asked."""
    with planning(), as_declared(), secrets_of_prefect(), going_on(chain(engine)):
        graph, world, leases = _to_plan(dag, parameters, engine)
        first = tuple(node for node in graph.nodes if not node.parents and node.task.preflight)
        return make_plan(Graph(graph.name, first), world, leases)


def _to_plan(
    dag: Dag[..., Any], parameters: Mapping[str, Any], engine: EngineSpec
) -> tuple[Graph, World, Leases]:
    dag.check(**parameters)
    with trapped():
        graph = dag.graph(**parameters)
    leases = Leases(Scope(name=dag.name, run="plan", placement=load_placement()))
    cut = selected(graph, engine)
    return cut, _world(cut, leases, engine), leases


def execute(dag: Dag[..., Any], parameters: dict[str, Any], engine: EngineSpec) -> Any:
    """Plan and run a dag inside the present flow run. Returns what its function promised.

    With mode `plan`: plans only, leaves the plan as an artifact, and returns it.
    """
    return _execute(dag, parameters, engine)[0]


def conclude(dag: Dag[..., Any], parameters: dict[str, Any], engine: EngineSpec) -> Any:
    """As `execute`; of a run that found results, in a state that says so on its page in Prefect, and why
    others were made again."""
    return _told(*_execute(dag, parameters, engine))


def _execute(
    dag: Dag[..., Any], parameters: dict[str, Any], engine: EngineSpec
) -> tuple[Any, Mapping[str, str], str]:
    """What its function promised, what became of the nodes, and why not all of them were cached."""
    runs = (*filter(None, [flow_run.name]), *chain(engine))
    with (
        _seldom_searched(),
        as_declared(),
        secrets_of_prefect(),
        temporary_files_removed(),
        going_on(runs),
    ):
        return _planned_and_run(dag, parameters, engine)


def _seldom_searched() -> AbstractContextManager[None]:
    """Until this run ends, garbage is looked for among what comes into being in it.

    To go through all that was imported before, again and again, took a fifth of the flow's own processor time
    in a search of 64 trials. What becomes garbage of the caller's meanwhile waits for the end.
    """
    return while_anyone("frozen objects", _frozen)


@contextmanager
def _frozen() -> Iterator[None]:
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _planned_and_run(
    dag: Dag[..., Any], parameters: dict[str, Any], engine: EngineSpec
) -> tuple[Any, Mapping[str, str], str]:
    if engine.mode == "resume":
        parameters = resumed_parameters(dag, engine)
    if engine.mode == "plan":
        shown = plan(dag, parameters, engine).plan
        _show(shown)
        return shown, {}, ""
    dag.check(**parameters)
    graph = selected(dag.graph(**parameters), engine)
    tags = {"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_url": str(flow_run.ui_url or "")}
    name = record_name(flow_run.name or "", str(flow_run.id))
    scope = Scope(name=dag.name, run=name, placement=load_placement(), tags=tags)
    leases = Leases(scope)
    with occupied():
        world = _world(graph, leases, engine)
        planned = _planned_ahead(graph, world, leases)
        refuse_doubtful(graph, planned.plan, engine)
        facts = {
            "run": scope.run,
            "dag": dag.name,
            "module": dag.function.__module__,
            "flow_run_id": str(flow_run.id),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "parameters": parameters,
            "engine": engine,
            "placement": scope.placement,
            "plan": planned.plan,
        }
        return _run(graph, planned, world, leases, facts, engine)


def _planned_ahead(graph: Graph, world: World, leases: Leases) -> Planned:
    first, surely = partial(_can_prepare, leases), partial(_prepare, leases)
    return make_plan(graph, world, leases, first=first, surely=surely)


def _can_prepare(leases: Leases, node: Node) -> bool:
    with suppress(PlatformError):
        return can_prepare(leases.resolve(node.resources).values())
    return False


def _prepare(leases: Leases, node: Node) -> None:
    """Ranks take as long to import TensorFlow as the rest of a plan, and what comes before a training that
    alone is new."""
    with at_work(), suppress(PlatformError):  # the plan asks whether it could be opened, and says why not
        prepare(leases.resolve(node.resources).values(), leases.scope.placement)


def _run(
    graph: Graph, planned: Planned, world: World, leases: Leases, facts: dict[str, Any], engine: EngineSpec
) -> tuple[Any, Mapping[str, str], str]:
    sweep()
    record = RunRecord(leases.scope.folder)
    record.begin(**facts)
    execution = Execution(graph, planned, world, leases, record, current_watcher(), engine)
    ended: BaseException | None = None
    try:
        _show(planned.plan)
        refuse(graph.name, planned.faults)
        with at_work(), heeding_cancellation():
            value = fill(graph.output, execution.run())
            return value, execution.states, planned.plan.because()
    except BaseException as error:
        ended = error
        raise
    finally:
        try:
            leases.close(ended)
        finally:
            state = "completed" if ended is None else f"failed: {type(ended).__name__}"
            record.finish(**facts, state=state, budget=str(leases.budget))
            _remember(graph, execution)
            _show_picture(graph, execution.states)
            if not isinstance(ended, Exception | None):
                # Whoever stops a run may end the process next: what became of the tasks is sent now.
                flush(timeout_s=FLUSH_S)


def _told(value: Any, states: Mapping[str, str], because: str) -> Any:
    reused = list(states.values()).count("cached")
    if not reused:
        return value
    ran = len(set(states) - {name for name, state in states.items() if state in {"cached", "skipped"}})
    results = "1 result is" if reused == 1 else f"{reused} results are"
    message = f"{f'{ran} of {len(states)} tasks ran' if ran else 'nothing to do'}: {results} stored{because}"
    get_run_logger().info(message)
    return Completed(message=message, data=value)


def _remember(graph: Graph, execution: Execution) -> None:
    """Nothing is decided by the history: a run does not fail for it."""
    try:
        add_to_history(graph.name, execution.accounts.history)
    except StoreError as error:
        get_run_logger().warning("%s", error)


def selected(graph: Graph, engine: EngineSpec) -> Graph:
    """The graph, or with `until` the part of it that ends in that task, which is then its output."""
    for name in (*engine.force, *filter(None, (engine.until, engine.from_task))):
        if not graph.named(name):
            raise SpecError(
                f"{graph.name} has no task {name!r}", hint=nearest(name, [n.name for n in graph.nodes])
            )
    if engine.until is None:
        return graph
    ends = graph.named(engine.until)
    kept = set().union(*(graph.upstream(name) for name in ends))
    output = [Reference(name) for name in ends]
    nodes = tuple(node for node in graph.nodes if node.name in kept)
    return Graph(graph.name, nodes, output[0] if len(output) == 1 else output)


def _world(graph: Graph, leases: Leases, engine: EngineSpec) -> World:
    forced = {node: "forced" for name in engine.force for node in graph.named(name)}
    if engine.from_task is not None:
        after = {node for name in graph.named(engine.from_task) for node in graph.downstream(name)}
        forced |= dict.fromkeys(after, f"from {engine.from_task} on")
    return World(
        results=Results(),
        history=read_history(graph.name),
        resolve=leases.resolve,
        forced=forced,
        accepted=accepted_results(graph, engine),
    )


def _show_picture(graph: Graph, states: Mapping[str, str]) -> None:
    """Left out for graphs that no page could show."""
    if len(graph.nodes) <= SHOWN_NODES:
        picture = base64.b64encode(to_svg(graph, states).encode()).decode()
        create_image_artifact(
            f"data:image/svg+xml;base64,{picture}", key="graph", description="What became of each task."
        )


def _show(plan: Plan) -> None:
    create_markdown_artifact(plan.markdown(), key="plan", description=plan.summary())
