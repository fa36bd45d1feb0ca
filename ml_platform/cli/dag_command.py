"""The command line that every dag has: `python -m flows.retrain [plan|resume|graph|runs|show|diff] …`."""

from __future__ import annotations

import functools
import inspect
import json as json_module
import os
import signal
import sys
import sysconfig
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, TextIO

import cyclopts
from cyclopts import Parameter
from pydantic import BaseModel, ValidationError
from rich.console import Console

from ml_platform.cli.printing import printer
from ml_platform.cli.run_commands import diff, runs, show
from ml_platform.cli.watch import shown
from ml_platform.engine.events import TaskEvent, watching
from ml_platform.engine.keys import as_declared
from ml_platform.engine.plan import EngineSpec
from ml_platform.engine.resume import resumed_parameters
from ml_platform.engine.server import asking, prefect_api
from ml_platform.errors import InfrastructureError, PlatformError, SpecError, StoreError
from ml_platform.store.location import home

if TYPE_CHECKING:
    from ml_platform.engine.dag import Dag

INTERRUPTED = 130
UNEXPECTED = 1

Json = Annotated[bool, Parameter(group="Run", negative="", help="Print only the result, as JSON, on stdout.")]
PlacementName = Annotated[
    str | None,
    Parameter(
        group="Run",
        help="Where it runs: `local`, or a file in deployments/placements (ML_PLATFORM_PLACEMENT).",
    ),
]


Names = Annotated[tuple[str, ...], Parameter(group="Run", negative="")]
_RUN_OPTIONS: dict[str, tuple[Any, Any]] = {"json": (Json, False), "placement": (PlacementName, None)}
_ENGINE_OPTIONS: dict[str, tuple[Any, Any]] = {
    "force": (
        Annotated[Names, Parameter(help="Tasks that run even if a result of theirs is stored.")],
        (),
    ),
    "until": (
        Annotated[str | None, Parameter(group="Run", help="Run this task and what it needs, nothing else.")],
        None,
    ),
    "on_failure": (
        Annotated[
            Literal["stop", "finish"],
            Parameter(group="Run", help="After a failure: stop everything, or finish what does not need it."),
        ],
        "stop",
    ),
}


def main(dag: Dag[..., Any], argv: Sequence[str] | None = None) -> int:
    """Run one command of a dag. Returns the exit code of the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    errors = Console(stderr=True, highlight=False)
    app = _app(dag)
    try:
        return app(arguments, exit_on_error=False, print_error=False) or 0
    except cyclopts.CycloptsError as error:
        errors.print(_usage_message(error), markup=False, soft_wrap=True)
        errors.print(f"  try: {_program(dag)} {_hint(app, error)}", markup=False, soft_wrap=True)
        return SpecError.exit_code
    except PlatformError as error:
        errors.print(f"{type(error).__name__}: {error}", markup=False, soft_wrap=True)
        return error.exit_code


def _app(dag: Dag[..., Any]) -> cyclopts.App:
    app = cyclopts.App(
        name=_program(dag),
        help=inspect.getdoc(dag.function),
        result_action="return_value",
        version_flags=[],
        help_format="plaintext",
        # --reading.header id name price, without naming the option three times.
        default_parameter=Parameter(consume_multiple=True),
    )
    app.default(_command(dag, _run, {**_ENGINE_OPTIONS, **_RUN_OPTIONS}))
    app.command(
        _command(dag, _plan, {**_ENGINE_OPTIONS, **_RUN_OPTIONS}),
        name="plan",
        help="Say what a run would do now, and why; runs nothing.",
    )
    app.command(_resume_command(dag), name="resume")
    app.command(
        _command(dag, _graph, {}), name="graph", help="Print the graph as a Mermaid flowchart; runs nothing."
    )
    app.command(
        _command(dag, _drill, {}),
        name="drill",
        help="Kill runs at every border and inside every write, and see that they recover; takes long.",
    )
    for command in (runs, show, diff):
        app.command(functools.partial(command, dag.name), name=command.__name__, help=inspect.getdoc(command))
    return app


def _resume_command(dag: Dag[..., Any]) -> Callable[..., int]:
    def resume(
        run: str,
        /,
        *,
        from_: Annotated[str | None, Parameter(name="--from")] = None,
        set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
        accept: Annotated[tuple[str, ...], Parameter(negative="")] = (),
        json: Json = False,
        placement: PlacementName = None,
        dry_run: Annotated[bool, Parameter(negative="")] = False,
    ) -> int:
        """Continue an earlier run under the present code: reuses what is still valid, runs the rest.

        Parameters
        ----------
        run
            Name of the run; `runs` lists them.
        from_
            Run this task and all after it anew. What comes before must be reusable.
        set_
            Parameters that differ from those of that run: keras.rate=0.01
        accept
            Tasks whose old result is reused although their code or input has changed.
        dry_run
            Only say what it would do, and why.
        """
        overrides = dict(map(_assignment, set_))
        engine = EngineSpec(mode="resume", run=run, from_task=from_, accept=accept, overrides=overrides)
        parameters = resumed_parameters(dag, engine)
        act = _show_plan if dry_run else _run_with
        return act(dag, parameters, engine, json=json, placement=placement)

    return resume


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"--set {text!r} sets nothing", wanted="--set NAME=VALUE, such as keras.rate=0.01")
    try:
        return name, json_module.loads(value)
    except ValueError:
        return name, value


def _program(dag: Dag[..., Any]) -> str:
    return f"python -m {dag.function.__module__}"


def _command(
    dag: Dag[..., Any], do: Callable[..., int], options: dict[str, tuple[Any, Any]]
) -> Callable[..., int]:
    """A function with the dag's parameters and these options, as cyclopts reads it."""

    def command(**arguments: Any) -> int:
        own = {name: arguments.pop(name, default) for name, (_, default) in options.items()}
        return do(dag, arguments, **own)

    keyword = inspect.Parameter.KEYWORD_ONLY
    declared = [p for p in inspect.signature(dag.fn).parameters.values() if p.name != "engine"]
    parameters = [parameter.replace(kind=keyword) for parameter in declared]
    parameters += [
        inspect.Parameter(name, keyword, default=default, annotation=annotation)
        for name, (annotation, default) in options.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = inspect.getdoc(dag.function)
    return command


def _usage_message(error: cyclopts.CycloptsError) -> str:
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return f"UsageError: {error}"
    argument = getattr(error, "argument", None)
    group = argument.name.removeprefix("--") if argument is not None else cause.title
    faults = [
        f"  --{'.'.join([group, *map(str, fault['loc'])])}: {fault['msg']}; got {fault['input']!r}"
        for fault in cause.errors()
    ]
    return "\n".join(["UsageError: options are out of their range", *faults])


def _hint(app: cyclopts.App, error: cyclopts.CycloptsError) -> str:
    """What to type after the program's name instead."""
    words = error.unused_tokens or [] if isinstance(error, cyclopts.UnusedCliTokensError) else []
    late = next((word for word in words if word in list(app)), None)
    return f"{late} …; a command stands before options" if late else "--help"


def _drill(dag: Dag[..., Any], parameters: dict[str, Any]) -> int:
    from ml_platform.engine.drill import crash_drill

    with _quiet(_log_file(dag)) as (out, err):
        drill = crash_drill(dag, say=lambda line: print(line, file=err, flush=True), **parameters)
        print(f"{len(drill.points)} crashes survived in {drill.seconds:.0f} s, nothing left behind", file=out)
    return 0


def _graph(dag: Dag[..., Any], parameters: dict[str, Any]) -> int:
    print(dag.graph(**parameters).to_mermaid())
    return 0


def _run(
    dag: Dag[..., Any], parameters: dict[str, Any], *, json: bool, placement: str | None, **engine: Any
) -> int:
    return _run_with(dag, parameters, EngineSpec(**engine), json=json, placement=placement)


def _plan(
    dag: Dag[..., Any], parameters: dict[str, Any], *, json: bool, placement: str | None, **engine: Any
) -> int:
    return _show_plan(dag, parameters, EngineSpec(mode="plan", **engine), json=json, placement=placement)


def _show_plan(
    dag: Dag[..., Any], parameters: dict[str, Any], engine: EngineSpec, *, json: bool, placement: str | None
) -> int:
    _place(placement)
    with asking(_use_running_services()):
        return _print_plan(dag, parameters, engine, json=json)


def _print_plan(dag: Dag[..., Any], parameters: dict[str, Any], engine: EngineSpec, *, json: bool) -> int:
    from ml_platform.engine.flow_run import plan

    log = _log_file(dag)
    with _quiet(log) as (out, err):
        try:
            planned = plan(dag, parameters, engine)
        except Exception as error:  # noqa: BLE001  (whatever it is, a person reads it here)
            return _explain(error, Console(file=err, highlight=False), log)
        _print_result(planned.plan, out, json=json)
        for fault in planned.faults:
            print(f"{type(fault).__name__}: {fault}", file=err)
    return planned.faults[0].exit_code if planned.faults else 0


def _place(placement: str | None) -> None:
    if placement is not None:
        from ml_platform.resources.placement import load_placement

        os.environ["ML_PLATFORM_PLACEMENT"] = load_placement(placement).name


def _use_running_services() -> str | None:
    """Let this process use the MLflow server of `make up`. Returns the Prefect API of it."""
    from ml_platform.cli.services import services

    running = services()
    if running is None:
        return None
    os.environ.setdefault("MLFLOW_TRACKING_URI", running.mlflow_url)
    return running.prefect_api_url


def _log_file(dag: Dag[..., Any]) -> Path:
    return home() / "logs" / f"{dag.name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"


def _run_with(
    dag: Dag[..., Any], parameters: dict[str, Any], engine: EngineSpec, *, json: bool, placement: str | None
) -> int:
    _place(placement)
    log = _log_file(dag)
    with _quiet(log) as (out, err), _terminable():
        console = Console(file=err, highlight=False)
        try:
            result = _run_shown(dag, parameters, engine, console)
        except KeyboardInterrupt:
            console.print(
                "interrupted: Spark jobs and ranks were cancelled, nothing was registered half", markup=False
            )
            return INTERRUPTED
        except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever it is, a person reads it here)
            return _explain(error, console, log)
        _print_result(result, out, json=json)
    return 0


def _run_shown(dag: Dag[..., Any], parameters: dict[str, Any], engine: EngineSpec, console: Console) -> Any:
    url = _use_running_services()
    with (
        _checked(dag, parameters, engine, url, console) as check_the_rest,
        prefect_api(url, meanwhile=check_the_rest) as api,
    ):
        console.print(f"{dag.name} reports to {api}", markup=False, soft_wrap=True)
        states: Counter[str] = Counter()
        with shown(console) as watch:

            def count(event: TaskEvent) -> None:
                states[event.state] += 1
                watch(event)

            with watching(count):
                result = dag(engine=engine, **parameters)
        if states["cached"] and not states["done"]:
            console.print(
                f"nothing to do: {states['cached']} results are stored; --force TASK runs one anyway"
            )
        return result


@contextmanager
def _checked(
    dag: Dag[..., Any], parameters: dict[str, Any], engine: EngineSpec, url: str | None, console: Console
) -> Iterator[Callable[[], None]]:
    """Say what is wrong with the request itself. Yields what says the rest, while a server starts."""
    from ml_platform.engine.check import refuse
    from ml_platform.engine.flow_run import plan, plan_first

    def check_the_rest() -> None:
        planned = plan(dag, parameters, engine, ahead=True)
        refuse(dag.name, planned.faults)
        if planned.plan.because():
            console.print(f"plan: {planned.plan.summary()}", markup=False, soft_wrap=True)

    with as_declared():
        with asking(url):
            refuse(dag.name, plan_first(dag, parameters, engine).faults)
        yield check_the_rest


def _explain(error: BaseException, console: Console, log: Path) -> int:
    """Say what failed, without a traceback: that is in the log. Returns the exit code."""
    if isinstance(error, PlatformError):
        console.print(f"{type(error).__name__}: {error}", markup=False, soft_wrap=True)
        console.print(f"  log: {log}", markup=False, soft_wrap=True)
        return error.exit_code
    traceback.print_exception(error)
    sys.stderr.flush()
    where = _last_own_line(error)
    infrastructure = type(error).__module__.partition(".")[0] in ("prefect", "httpx", "httpcore")
    console.print(f"{type(error).__name__}: {error}", markup=False, soft_wrap=True)
    if where is not None:
        file = Path(where.filename).name
        console.print(
            f"  in {where.name} ({file}:{where.lineno}): {where.line}", markup=False, soft_wrap=True
        )
    for line in _last_lines(log):
        console.print(f"  | {line}", markup=False, soft_wrap=True)
    console.print(f"  log, with the traceback: {log}", markup=False, soft_wrap=True)
    return InfrastructureError.exit_code if infrastructure else UNEXPECTED


def _last_own_line(error: BaseException) -> traceback.FrameSummary | None:
    """Where the user's own code was last, above the libraries that it called."""
    foreign = str(Path(__file__).parents[1]), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib"))
    frames = traceback.extract_tb(error.__traceback__)
    return next((f for f in reversed(frames) if not f.filename.startswith((*foreign, "<"))), None)


def _last_lines(log: Path, count: int = 8) -> list[str]:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line for line in lines if line.strip()][-count:]


def _print_result(result: Any, out: TextIO, *, json: bool) -> None:
    if isinstance(result, BaseModel) and json:
        print(result.model_dump_json(indent=2), file=out, flush=True)
    elif json:
        print(json_module.dumps(result, default=repr), file=out, flush=True)
    else:
        printer(out).print(result, soft_wrap=True)


@contextmanager
def _quiet(log: Path) -> Iterator[tuple[TextIO, TextIO]]:
    """Send everything that this process and its children print to a log file; yields the real stdout
    and stderr. Works on file descriptors: the JVM, ranks and C++ libraries write to those."""
    file = _opened(log)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with file, os.fdopen(saved[0], "w") as out, os.fdopen(saved[1], "w") as err:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield out, err
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            out.flush()
            err.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)


def _opened(log: Path) -> IO[bytes]:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise StoreError(
            f"the log file {log} cannot be written",
            got=f"{type(error).__name__}: {error.strerror}",
            hint="free some space there, or name a folder that you may write in ML_PLATFORM_HOME",
        ) from error


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, and a terminal that is closed, end a run as Ctrl-C does: resources are closed first."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    ends = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
