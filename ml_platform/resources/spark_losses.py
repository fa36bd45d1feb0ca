"""What Spark says when a JVM or a worker was lost: the same again may work, it is no bug of the task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ml_platform.errors import InfrastructureError, PlatformError
from ml_platform.resources.spark import has_ended
from ml_platform.store.spark_failures import causes, raised_by_worker

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOST = re.compile(
    r"ExecutorLostFailure|Python worker exited unexpectedly|FetchFailed|ExecutorDeadException"
    r"|SparkContext (?:was|has been) (?:shut down|stopped)|No space left on device"
)


@contextmanager
def lost_executors(root: SparkSession, task: str) -> Iterator[None]:
    """Tell what was lost from what the user's code raised.

    Raises:
        InfrastructureError: The JVM, an executor or a Python worker ended while the task ran.
        PlatformError: What a worker raised, as itself.
    """
    try:
        yield
    except Exception as error:
        _keep_texts(error)
        if isinstance(error, PlatformError):
            raise
        if has_ended(root):
            raise _lost(task, "its JVM ended", error) from error
        if (raised := raised_by_worker(str(error))) is not None:
            raise raised from error
        if LOST.search(str(error)):
            raise _lost(task, "an executor or its Python worker ended", error) from error
        raise


def _keep_texts(error: BaseException | None) -> None:
    """Let exceptions of Spark say by themselves what they ask a JVM for: it ends before they are shown."""
    from pyspark import SparkContext
    from pyspark.errors.exceptions.captured import CapturedException

    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        if isinstance(error, CapturedException) and SparkContext._jvm is not None:
            kind, text = type(error), str(error)
            named = {"__str__": lambda self, text=text: text, "__module__": kind.__module__}
            error.__class__ = type(kind.__name__, (kind,), named)
        error = error.__cause__ or error.__context__


def _lost(task: str, got: str, error: Exception) -> InfrastructureError:
    return InfrastructureError(
        f"Spark was lost while task {task} ran",
        got=got,
        evidence=causes(str(error)),
        hint="if it happens again: spark.log in the folder of the run; perhaps more memory in the placement",
    )
