"""A function that runs on one executor of a Spark application, in a slot of its own."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")


def call_on_executor(spark: SparkSession, function: Callable[[], T]) -> T:
    """Call a function where a Spark task runs. From several threads: side by side, as slots allow.

    Args:
        function: What it needs travels with it; its result must be picklable.
    Raises:
        Exception: What the function raised. Spark's own errors where the executor was lost.
    """
    import cloudpickle  # type: ignore[import-untyped]

    # An RDD: a query would be planned first, which costs the JVM more than all the rest.
    one = spark.sparkContext.parallelize([0], 1)
    ((is_error, answer),) = one.mapPartitions(_Call(cloudpickle.dumps(function))).collect()
    result = pickle.loads(answer)
    if is_error:
        raise result
    return result  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Call:
    function: bytes

    def __call__(self, rows: Iterable[int]) -> Iterator[tuple[bool, bytes]]:
        import cloudpickle

        for _ in rows:
            pass  # a worker that leaves some unread is not used again
        try:
            found, is_error = pickle.loads(self.function)(), False
        except Exception as error:  # noqa: BLE001  (it is raised where the call was made)
            found, is_error = error, True
        yield is_error, cloudpickle.dumps(found)
