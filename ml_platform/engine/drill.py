"""Crash drill: kill a run at every border and inside every write, resume it, and see that nothing is wrong.

    from ml_platform import crash_drill
    crash_drill(my_dag, source="small.csv")

Runs are processes of their own, killed with SIGKILL at the first point that was not drilled yet, so each
one goes on from what the one before left. When a run gets through, all points have been drilled. They are
forked from a process that has done the imports, see `ml_platform.engine.drill_runs`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from pydantic import TypeAdapter

from ml_platform.engine.drill_runs import Order, Outcome
from ml_platform.engine.server import TemporaryServer
from ml_platform.errors import InfrastructureError
from ml_platform.specs.base import Spec
from ml_platform.store.leftovers import tagged
from ml_platform.store.manifest import MANIFEST, open_dataset

if TYPE_CHECKING:
    from ml_platform.engine.dag import Dag

MARK = "ML_PLATFORM_DRILL"
END_TIMEOUT_S = 10.0
POLL_S = 0.05
MOST_CRASHES = 500
MOST_DIFFERENCES = 10
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


class Drill(Spec):
    """What a drill went through."""

    points: tuple[str, ...]
    """Where runs were killed, in order: `task: step`."""
    seconds: float


def crash_drill(
    dag: Dag[..., Any],
    *,
    say: Callable[[str], None] = lambda _: None,
    run_timeout_s: float = 600,
    **parameters: Any,
) -> Drill:
    """Drill a dag, in folders of its own that are removed at the end.

    Args:
        dag: Importable by its module and name.
        say: Called with a line about each run.
        run_timeout_s: Seconds that one run may take.
        parameters: Of the dag.
    Raises:
        InfrastructureError: After a crash something was left (a process, a half-written data set, a
            temporary folder), a run failed, or the outputs differ from those of a run that was not disturbed.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crash-drill-") as folder:
        server = TemporaryServer()
        drill = _Drill(dag, parameters, Path(folder), server.address, run_timeout_s)
        try:
            drill.begin()
            server.url()
            undisturbed = drill.undisturbed()
            for ended, points in drill.crashes():
                say(f"killed at {points[-1]}" if ended is None else f"survived {len(points)} crashes")
            assert ended is not None
            if differences := list(_differences(undisturbed.output, ended.output, "output")):
                raise InfrastructureError(
                    f"after {len(points)} crashes {dag.name} gives something else",
                    wanted="an output like that of an undisturbed run",
                    got=f"{len(differences)} differences",
                    evidence="\n".join(differences[:MOST_DIFFERENCES]),
                )
        finally:
            drill.end()
            server.stop()
    return Drill(points=tuple(points), seconds=time.monotonic() - began)


class _Drill:
    def __init__(
        self, dag: Dag[..., Any], parameters: dict[str, Any], folder: Path, api: str, timeout_s: float
    ) -> None:
        validated = _ANY.dump_python(dag.with_defaults(parameters), mode="json")
        self._what = f"{dag.function.__module__}:{dag.function.__qualname__}", json.dumps(validated)
        self._folder = folder
        self._timeout_s = timeout_s
        self._mark = uuid.uuid4().hex
        self._environment = {**os.environ, "PREFECT_API_URL": api, MARK: self._mark}
        self._environment |= {"PREFECT_HOME": str(folder / "prefect"), "TMPDIR": str(self._made("temporary"))}
        self._environment.pop("ML_PLATFORM_STORE", None)
        self._environment.pop("MLFLOW_TRACKING_URI", None)
        self._runs: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start the process that forks runs; it imports the dag meanwhile."""
        module, parent = "ml_platform.engine.drill_runs", f"--parent={os.getpid()}"
        with (self._folder / "log").open("ab") as chatter:
            self._runs = subprocess.Popen(
                [sys.executable, "-m", module, parent, *self._what],
                env={**self._environment, "ML_PLATFORM_HOME": str(self._made("undisturbed"))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=chatter,
                bufsize=0,
            )

    def end(self) -> None:
        """End that process, and with it a run that is still under way."""
        if self._runs is not None:
            self._runs.kill()
            self._runs.communicate()

    def undisturbed(self) -> Outcome:
        """What the dag gives when nothing happens."""
        code, ended = self._run(self._folder / "undisturbed", None)
        if code or ended is None:
            raise self._failed("an undisturbed run", code)
        return ended

    def crashes(self) -> Iterator[tuple[Outcome | None, list[str]]]:
        """After each run: its outcome, or None when it was killed; and the points so far."""
        home, log = self._made("drilled"), self._folder / "points"
        for _ in range(MOST_CRASHES):
            code, ended = self._run(home, log)
            points = log.read_text().splitlines() if log.exists() else []
            self._check_processes(points)
            self._check_store(home, points)
            if code == 0 and ended is not None:
                self._check_leftovers(home)
                yield ended, points
                return
            if code != -signal.SIGKILL:
                raise self._failed(
                    f"the run after the crash at {points[-1] if points else 'the start'}", code
                )
            yield None, points
        raise InfrastructureError(f"no end after {MOST_CRASHES} crashes", got=points[-1])

    def _run(self, home: Path, points: Path | None) -> tuple[int, Outcome | None]:
        """Exit code of a run, and its outcome if it came to its end."""
        assert self._runs is not None
        assert self._runs.stdin is not None
        order = Order(home=home, output=self._folder / f"output-{uuid.uuid4().hex}", points=points)
        deadline = time.monotonic() + self._timeout_s
        with suppress(BrokenPipeError):  # whoever should fork it is gone, and `_answer` says why
            self._runs.stdin.write(f"{order.model_dump_json()}\n".encode())
        self._answer(deadline)
        code = self._answer(deadline)
        done = order.output.exists()
        return code, Outcome.model_validate_json(order.output.read_bytes()) if done else None

    def _answer(self, deadline: float) -> int:
        assert self._runs is not None
        assert self._runs.stdout is not None
        readable, _, _ = select.select([self._runs.stdout], [], [], max(0, deadline - time.monotonic()))
        if not readable:
            raise self._failed("a run", f"none within {self._timeout_s:g} s")
        line = self._runs.stdout.readline()
        if not line:
            raise self._failed("the process that forks runs", self._runs.wait())
        return int(line)

    def _check_processes(self, points: list[str]) -> None:
        """Ranks, Spark and servers of a dead run end by themselves."""
        deadline = time.monotonic() + END_TIMEOUT_S
        while left := [process for process in psutil.process_iter() if self._is_ours(process)]:
            if time.monotonic() > deadline:
                where = points[-1] if points else "its end"
                raise InfrastructureError(
                    f"{len(left)} processes outlive the run that was killed at {where}",
                    got=", ".join(f"{process.pid} {process.name()}" for process in left),
                )
            time.sleep(POLL_S)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            forks_runs = self._runs is not None and process.pid == self._runs.pid
            return not forks_runs and process.environ().get(MARK) == self._mark
        except psutil.Error:
            return False

    def _check_store(self, home: Path, points: list[str]) -> None:
        """Whatever has a manifest is whole."""
        for manifest in (home / "data").glob(f"*/*/{MANIFEST}"):
            if ".tmp-" not in manifest.parent.name:
                open_dataset(manifest.parent.as_uri())
        torn = [path for path in (home / "data").glob("[!.]*/*") if not _is_whole(path)]
        if torn:
            raise InfrastructureError(
                f"a half-written data set after the crash at {points[-1]}", got=", ".join(map(str, torn))
            )

    def _check_leftovers(self, home: Path) -> None:
        left = [*(self._folder / "temporary").iterdir(), *tagged(home)]
        if left:
            raise InfrastructureError("temporary folders are left", got=", ".join(map(str, left)))

    def _failed(self, what: str, code: int | str) -> InfrastructureError:
        lines = (self._folder / "log").read_text(errors="replace").splitlines()[-25:]
        return InfrastructureError(f"{what} failed", got=f"exit code {code}", evidence="\n".join(lines))

    def _made(self, name: str) -> Path:
        (self._folder / name).mkdir()
        return self._folder / name


def _differences(wanted: Any, got: Any, where: str) -> Iterator[str]:
    """Where two identities differ, a line each."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        for name in {**wanted, **got}:
            inside = where if name == "is" else f"{where}.{name}"
            yield from _differences(wanted.get(name), got.get(name), inside)
    elif isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        for number, pair in enumerate(zip(wanted, got, strict=True)):
            yield from _differences(*pair, f"{where}[{number}]")
    elif wanted != got:
        yield f"{where}: {wanted!r} → {got!r}"


def _is_whole(folder: Path) -> bool:
    return ".tmp-" in folder.name or not folder.is_dir() or (folder / MANIFEST).exists()
