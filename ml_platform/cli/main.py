"""`python -m ml_platform`: the machine and the servers around the flows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import cyclopts
from cyclopts import Parameter
from cyclopts.exceptions import CycloptsError
from rich.console import Console

from ml_platform.cli.cache import cache
from ml_platform.cli.contract import contract
from ml_platform.cli.printing import printer
from ml_platform.cli.registry import registry
from ml_platform.errors import PlatformError

INTERRUPTED = 130

app = cyclopts.App(
    name="python -m ml_platform",
    help="Look after the machine that flows run on. Flows have commands of their own: python -m flows.NAME",
    version_flags=[],
    result_action="return_value",
)

app.command(cache)
app.command(contract)
app.command(registry)

Port = Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=1, lte=65535))]


@app.command
def doctor(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Check versions, Java, Horovod, cores, memory, disk, GPUs, ports and servers.

    Exit code 1 when something would block a run.

    Parameters
    ----------
    json
        Print the checks as JSON instead of a table.
    """
    from ml_platform.cli.doctor import examine, render, to_json

    checks = examine()
    if json:
        print(to_json(checks))
    else:
        render(checks, printer())
    return 1 if any(check.status == "block" for check in checks) else 0


@app.command
def build_horovod(
    *,
    again: Annotated[bool, Parameter(negative="")] = False,
    gpu: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Install the Horovod that fits the installed TensorFlow; compile it when no build is kept yet.

    Builds are kept in ~/.cache/ml-platform/horovod (or below XDG_CACHE_HOME) for all environments.

    Parameters
    ----------
    again
        Compile although the same build failed before and nothing has changed since.
    gpu
        The build with NCCL, for ranks with a GPU each. Needs CUDA's compiler and NCCL's header.
    """
    from ml_platform.resources.horovod_build import ensure_horovod

    print(ensure_horovod(again=again, gpu=gpu, say=_say).reason, file=sys.stderr)
    return 0


@app.command
def up(*, prefect_port: Port = 4200, mlflow_port: Port = 5000) -> int:
    """Start a Prefect server, an MLflow server and a Prefect worker on this machine.

    They listen on 127.0.0.1 alone, keep their data below the platform's folder, and run until `down`.

    Parameters
    ----------
    prefect_port
        Port of Prefect's API and pages.
    mlflow_port
        Port of MLflow's API and pages.
    """
    from ml_platform.cli.services import start

    services = start(prefect_port=prefect_port, mlflow_port=mlflow_port, say=_say)
    print(f"Prefect  {services.prefect_url}\nMLflow   {services.mlflow_url}")
    print(f"worker   takes runs of work pool {services.work_pool}")
    print("deploy   prefect --no-prompt deploy --all, with")
    print(f"         PREFECT_API_URL={services.prefect_api_url}")
    return 0


@app.command
def down() -> int:
    """End what `up` started, and every flow run that its worker started."""
    from ml_platform.cli.services import stop

    ended = stop(say=_say)
    print(f"ended {ended} processes" if ended else "nothing was up")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code; a failure is said in a few lines, without a traceback."""
    try:
        result = app(
            sys.argv[1:] if arguments is None else arguments,
            exit_on_error=False,
            print_error=False,
        )
    except CycloptsError as error:
        Console(stderr=True, highlight=False).print(str(error), markup=False)
        print("try: python -m ml_platform --help", file=sys.stderr)
        return 2
    except PlatformError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
