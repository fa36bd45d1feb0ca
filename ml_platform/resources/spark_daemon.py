"""The daemon of Spark's Python workers on this machine: it imports what they need before it forks them.

`python -m ml_platform.resources.spark_daemon WORKER_MODULE`, started by Spark instead of `pyspark.daemon`.
Spark puts PySpark as a zip file in front of the path, whose modules each process compiles anew, and each
worker imports pandas and Arrow for itself: a second of a processor per worker.
"""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path

IN_EVERY_WORKER = (
    "numpy",
    "pandas",
    "pyarrow.compute",
    "pyarrow.parquet",
    "pyspark.worker",
    "pyspark.sql.pandas.serializers",
    "pyspark.sql.pandas.types",
)
"""They start no thread that a fork would lose: Arrow's allocator looks after its own."""


def main() -> None:
    sys.path[:] = unpacked(sys.path)
    gc.disable()
    for name in IN_EVERY_WORKER:
        importlib.import_module(name)
    from pyspark import daemon

    gc.collect()
    gc.freeze()
    gc.enable()
    daemon.manager()


def unpacked(path: list[str]) -> list[str]:
    """The path without the zip files of the very PySpark that is installed on it."""
    return [entry for entry in path if not _is_zip_of_installed(Path(entry), path)]


def _is_zip_of_installed(entry: Path, path: list[str]) -> bool:
    inside = entry.suffix == ".zip" and entry.parts[-4:-1] == ("pyspark", "python", "lib")
    return inside and str(entry.parents[3]) in path


if __name__ == "__main__":
    main()
