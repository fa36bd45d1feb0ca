"""The Spark application of a process, and sessions of their own for tasks.

`open_session` starts an application (or adopts the one that is live and then never stops it);
`task_session` gives one task its own SQL settings, temporary views, job group and scheduler pool.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from ml_platform.errors import ResourceStartError
from ml_platform.resources.executor_call import cancel_calls, end_calls
from ml_platform.resources.gpus import spark_gpu_settings
from ml_platform.resources.java import check_java, class_archive
from ml_platform.resources.project_files import pack_packages
from ml_platform.resources.spark_connect import check_no_connect
from ml_platform.resources.spark_daemon import DAEMON
from ml_platform.resources.spark_launch import Launch
from ml_platform.specs.placements import SparkPlacement
from ml_platform.specs.resources import SparkSpec
from ml_platform.store.leftovers import builder
from ml_platform.store.location import home

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["cancel_group", "check_java", "has_ended", "open_session", "task_session"]

LOG_NAME = "spark.log"
BATCH_ROWS = 16_384
"""Rows per Arrow batch: four make a row group of a data set."""
LOG_TAIL_LINES = 20
ENVIRONMENT = "environment"
"""Folder into which executors unpack the placement's environment."""
JVM_STOP_TIMEOUT_S = 10

_opening = threading.Lock()


@contextmanager
def open_session(
    placement: SparkPlacement, *, log_folder: Path | None = None, launch: Launch | None = None
) -> Iterator[SparkSession]:
    """A Spark session: the live one of this process, or a new application.

    A new application ends with the last block that uses it; one that somebody else started is never stopped.

    What the JVM and the Python workers print goes to `spark.log`; the terminal stays clean. When this
    process dies, even by kill -9, the JVM ends by itself.

    Args:
        placement: Master, driver memory and settings. Not used when a session is live already.
        log_folder: Where `spark.log` is appended to. Default: `logs` under `home()`.
        launch: Lets another thread call off the start.
    Raises:
        ResourceStartError: Java is missing or too old, Spark Connect is asked for, or the application did not
            start, or was not to.
    """
    check_no_connect(placement)
    launch = launch or Launch()
    with launch.turn(_opening):
        application = _joined(placement, log_folder or home() / "logs", launch)
    try:
        yield application.session
    finally:
        with _opening:
            application.leave()


class _Application:
    """A Spark application, and how many blocks of ours use it. One that we did not start is never stopped."""

    own: ClassVar[_Application | None] = None

    def __init__(self, session: SparkSession, stack: ExitStack) -> None:
        self.session = session
        self.users = 0
        self._stack = stack

    def leave(self) -> None:
        self.users -= 1
        if self.users == 0:
            self.end()

    def end(self) -> None:
        if _Application.own is self:
            _Application.own = None
        end_calls(self.session.sparkContext)
        self._stack.close()


def _joined(placement: SparkPlacement, log_folder: Path, launch: Launch) -> _Application:
    if _Application.own is not None and has_ended(_Application.own.session):
        _Application.own.end()
    live, application = live_session(), _Application.own
    if live is None:
        stack = ExitStack()
        application = _Application.own = _Application(_start(placement, log_folder, launch, stack), stack)
    elif application is None or application.session.sparkContext is not live.sparkContext:
        application = _Application(live, ExitStack())
    application.users += 1
    return application


def live_session() -> SparkSession | None:
    """The session of this process, whoever started it."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if SparkContext._active_spark_context is None:
        return SparkSession.getActiveSession()
    return SparkSession.builder.getOrCreate()


def _start(placement: SparkPlacement, log_folder: Path, launch: Launch, stack: ExitStack) -> SparkSession:
    check_java()
    scratch = _scratch_folder()
    stack.callback(shutil.rmtree, scratch, ignore_errors=True)
    log_folder.mkdir(parents=True, exist_ok=True)
    log = log_folder / LOG_NAME
    settings = _settings(placement, scratch)
    begin = log.stat().st_size if log.exists() else 0
    try:
        session = _start_application(settings, log, launch, stack)
        session.sparkContext.pythonExec = _python(placement)
        if not is_local(placement.master):
            packages = pack_packages([Path(path) for path in _project_paths()], scratch / "project.zip")
            session.sparkContext.addPyFile(str(packages))
    except ResourceStartError:
        stack.close()
        raise
    except Exception as error:
        stack.close()
        launch.check()
        raise _start_error(placement, log, begin, error) from error
    return session


def _python(placement: SparkPlacement) -> str:
    """The interpreter of executors."""
    if placement.python is not None:
        return placement.python
    if placement.environment is not None:
        return f"{ENVIRONMENT}/bin/python"
    return os.environ.get("PYSPARK_PYTHON", sys.executable)


def _start_application(
    settings: Mapping[str, str], log: Path, launch: Launch, stack: ExitStack
) -> SparkSession:
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    with ExitStack() as starting:
        starting.enter_context(_interrupt_handler_kept())
        if SparkContext._gateway is None:
            starting.enter_context(launch.under_way())
            conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
            _launch_jvm(conf, log, stack)
        else:
            # A JVM that somebody else started: its settings object must live there.
            conf = SparkConf().setAll(list(settings.items()))
        context = SparkContext(conf=conf)
        stack.callback(context.stop)
    session = SparkSession.builder.getOrCreate()
    stack.callback(_stop, session)
    return session


def has_ended(session: SparkSession) -> bool:
    """Whether nothing can be done with a session any more: it was stopped, or its JVM is gone."""
    # Its own context tells: the gateway is one for all sessions, and may be that of a JVM that came after.
    return session.sparkContext._jsc is None or _jvm_has_ended(session)


def _jvm_has_ended(session: SparkSession) -> bool:
    """Whether the JVM that `open_session` started is gone: killed, or out of memory."""
    process = getattr(session.sparkContext._gateway, "proc", None)
    return process is not None and process.poll() is not None


def _stop(session: SparkSession) -> None:
    try:
        session.stop()
    except Exception:
        if not _jvm_has_ended(session):
            raise


def _launch_jvm(conf: Any, log: Path, stack: ExitStack) -> None:
    """Start the JVM with its output in `log`; its end is put on `stack`."""
    from pyspark import SparkContext
    from pyspark.java_gateway import launch_gateway

    with log.open("ab") as output:
        gateway: Any = launch_gateway(  # type: ignore[no-untyped-call]
            conf, popen_kwargs={"stdout": output, "stderr": subprocess.STDOUT}
        )
    stack.callback(_end_jvm, gateway)
    SparkContext._ensure_initialized(gateway=gateway)


def _end_jvm(gateway: Any) -> None:
    """Free the memory of a JVM that `_launch_jvm` started: the next application gets one of its own."""
    from pyspark import SparkContext

    with SparkContext._lock:
        SparkContext._gateway = None
        SparkContext._jvm = None
    gateway.shutdown()
    process: subprocess.Popen[bytes] | None = getattr(gateway, "proc", None)
    if process is None:
        return
    stdin: IO[bytes] | None = process.stdin
    if stdin is not None:
        stdin.close()
    try:
        process.wait(JVM_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _interrupt_handler_kept() -> Iterator[None]:
    """SparkContext replaces the handler of Ctrl-C, and its own fails once the context has stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _settings(placement: SparkPlacement, scratch: Path) -> dict[str, str]:
    """Every setting of the application; the placement's own win."""
    settings = {
        "spark.master": placement.master,
        "spark.app.name": "ml-platform",
        "spark.driver.memory": f"{placement.driver_memory_mib}m",
        "spark.scheduler.mode": "FAIR",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.warehouse.dir": (scratch / "warehouse").as_uri(),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH_ROWS),
        "spark.executorEnv.TF_CPP_MIN_LOG_LEVEL": "3",
        # 40 tries at 15 s, by default: ten minutes until a stage that cannot start says so.
        "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
    }
    # Its libraries and temporary folders go with the scratch folder, also when the JVM is killed.
    options = [f"-Djava.io.tmpdir={scratch}"]
    if archive := class_archive():
        options.append(f"-XX:SharedArchiveFile={archive}")
    settings["spark.driver.defaultJavaOptions"] = " ".join(f'"{option}"' for option in options)
    if placement.gpu:
        settings |= spark_gpu_settings(placement.master)
    if is_local(placement.master):
        settings |= _local_settings(scratch)
        if _python(placement) == sys.executable:
            settings["spark.python.daemon.module"] = DAEMON
    if placement.environment is not None:
        archives = "spark.yarn.dist.archives" if placement.master == "yarn" else "spark.archives"
        settings[archives] = f"{placement.environment}#{ENVIRONMENT}"
    return settings | placement.conf


def _local_settings(scratch: Path) -> dict[str, str]:
    return {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(scratch),
        "spark.executorEnv.PYTHONPATH": os.pathsep.join(_project_paths()),
    }


def _project_paths() -> list[str]:
    """Folders that this process imports from and that no installation holds: the workers need them too."""
    installed = tuple(str(Path(prefix).resolve()) + os.sep for prefix in {sys.prefix, sys.base_prefix})
    root = str(Path(__file__).resolve().parents[2])
    here = [str(Path(entry).resolve()) for entry in sys.path if Path(entry).is_dir()]
    return list(dict.fromkeys([root, *(path for path in here if not (path + os.sep).startswith(installed))]))


def _scratch_folder() -> Path:
    parent = home() / "scratch"
    parent.mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"spark-{builder()}-", dir=parent))


def is_local(master: str) -> bool:
    """Whether executors are threads of the driver's own JVM."""
    return master.startswith("local")


def _start_error(placement: SparkPlacement, log: Path, begin: int, error: Exception) -> ResourceStartError:
    written = log.read_bytes()[begin:].decode(errors="replace") if log.exists() else ""
    lines = [line for line in written.splitlines() if not line.startswith("\tat ")]
    return ResourceStartError(
        f"Spark did not start with master {placement.master}",
        got=str(error).splitlines()[0] if str(error) else type(error).__name__,
        evidence="\n".join([f"log: {log} (its last lines:)", *lines[-LOG_TAIL_LINES:]]),
        hint="less `driver_memory_mib`, or another `master`, in the placement",
    )


@contextmanager
def task_session(root: SparkSession, spec: SparkSpec, *, group: str) -> Iterator[SparkSession]:
    """A session for one task: settings and temporary views of its own, jobs that can be cancelled together.

    Threads that the task starts itself belong to the group only when they are started through
    `pyspark.inheritable_thread_target`.

    Args:
        root: The application's session.
        group: Names the task run; jobs started by this thread carry it until the block ends.
    """
    from ml_platform.resources.late_session import POOL, LateSession

    session = LateSession(root, group)
    try:
        for name, value in spec.conf.items():
            session.conf.set(name, value)
        root.sparkContext.setJobGroup(group, group, interruptOnCancel=True)
        yield session
    finally:
        # Threads are used again: the next task must not inherit this one's group.
        if not has_ended(root):
            root.sparkContext._jsc.clearJobGroup()
            if session.is_made:
                root.sparkContext._jsc.setLocalProperty(POOL, None)


def cancel_group(root: SparkSession, group: str) -> None:
    """Stop the jobs of a task session, those under way and those it would still start. From any thread."""
    if not has_ended(root):
        root.sparkContext._jsc.sc().cancelJobGroupAndFutureJobs(group)
        cancel_calls(root.sparkContext, group)
