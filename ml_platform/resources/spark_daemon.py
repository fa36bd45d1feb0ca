"""The daemon of Spark's Python workers on this machine: it imports what they need before it forks them.

`python -m ml_platform.resources.spark_daemon WORKER_MODULE`, started by Spark instead of `pyspark.daemon`.
Spark puts PySpark as a zip file in front of the path, whose modules each process compiles anew, and each
worker imports pandas and Arrow for itself: a second of a processor per worker. TensorFlow takes ten, so there
is a daemon of its own for functions that need it; see `forked_with`.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

IN_EVERY_WORKER = (
    "numpy",
    "pandas",
    "pyarrow.compute",
    "pyarrow.parquet",
    "pyspark.worker",
    "pyspark.sql.pandas.serializers",
    "pyspark.sql.pandas.types",
    "ml_platform.specs.training",
    "ml_platform.worker.functions",
)
"""They start no thread that a fork would lose: Arrow's allocator looks after its own."""
DAEMON = "ml_platform.resources.spark_daemon"
TENSORFLOW = ("tensorflow", "keras")
"""Modules that take long to import, and start nothing that a fork would lose."""
IMPORTS = "ML_PLATFORM_WORKER_IMPORTS"
"""Environment variable of a daemon: modules that its workers have besides."""

_defining = threading.Lock()


@contextmanager
def forked_with(modules: Sequence[str]) -> Iterator[None]:
    """Functions that are given to Spark inside the block run in workers that have these modules from birth.

    Spark keeps a daemon for each environment of its functions. So these have one of their own, which imports
    the modules once for all workers. They share that memory, and are there at once again after Spark has
    ended idle ones, as it does after a minute. On other machines each worker imports for itself.
    """
    from pyspark import SparkContext

    context = SparkContext._active_spark_context
    if not modules or context is None or context._conf.get("spark.python.daemon.module") != DAEMON:
        yield
        return
    with _defining:
        before = context.environment
        # Another dictionary: a function that another thread defines may be sending this one to the JVM.
        context.environment = {**before, IMPORTS: " ".join(modules)}
        try:
            yield
        finally:
            context.environment = before


def main() -> None:
    sys.path[:] = unpacked(sys.path)
    gc.disable()
    for name in IN_EVERY_WORKER:
        importlib.import_module(name)
    with redirect_stdout(sys.stderr):  # Spark reads a number from stdout
        import_also(os.environ.get(IMPORTS, "").split())
    from pyspark import daemon

    gc.collect()
    gc.freeze()
    gc.enable()
    daemon.manager()


def import_also(modules: Sequence[str]) -> None:
    """Import what this daemon is there for. Where that fails, each worker tries again and says so itself."""
    if not modules:
        return
    from ml_platform.worker.session import quiet_tensorflow

    quiet_tensorflow()
    try:
        for name in modules:
            importlib.import_module(name)
    except Exception:  # noqa: BLE001  (whatever a broken installation raises)
        traceback.print_exc()


def unpacked(path: list[str]) -> list[str]:
    """The path without the zip files of the very PySpark that is installed on it."""
    return [entry for entry in path if not _is_zip_of_installed(Path(entry), path)]


def _is_zip_of_installed(entry: Path, path: list[str]) -> bool:
    inside = entry.suffix == ".zip" and entry.parts[-4:-1] == ("pyspark", "python", "lib")
    return inside and str(entry.parents[3]) in path


if __name__ == "__main__":
    main()
