"""A real Spark standalone cluster on this machine: one master, and workers with one core each."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_START_S = 120
QUICK_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""For a JVM that is never warm: its second compiler would cost more than it gives."""


@contextmanager
def standalone_cluster(folder: Path, *, workers: int = 2) -> Iterator[str]:
    """Start it, and end all of its processes, executors too.

    Yields:
        The master's address, spark://…
    """
    with ExitStack() as stack:
        master = stack.enter_context(_daemon(folder, "master", "org.apache.spark.deploy.master.Master"))
        address = _said(folder / "master.log", r"Starting Spark master at (spark://\S+)", master)
        for number in range(workers):
            name = f"worker-{number}"
            options = ("--cores", "1", "--memory", "1g", "--work-dir", str(folder / name), address)
            worker = stack.enter_context(
                _daemon(folder, name, "org.apache.spark.deploy.worker.Worker", *options)
            )
            _said(folder / f"{name}.log", r"Successfully registered with master", worker)
        yield address


@contextmanager
def _daemon(folder: Path, name: str, java_class: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    import pyspark

    home = Path(pyspark.__file__).parent
    where = ("--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(folder / "scratch"),
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": f"{QUICK_JAVA} -Dspark.master.rest.enabled=false",
    }
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [home / "bin" / "spark-class", java_class, *where, *options],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=_die_with_parent,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _die_with_parent() -> None:
    """A test that is killed leaves no cluster: executors end with their worker."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def _said(log: Path, pattern: str, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + _START_S
    while True:
        text = log.read_text(errors="replace")
        if found := re.search(pattern, text):
            return found.group(found.lastindex or 0)
        assert process.poll() is None, text
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
