"""A function that runs on one executor of a Spark application, in a slot of its own."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa
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

    call = _Call(cloudpickle.dumps(function))
    (row,) = spark.range(0, 1, 1, 1).mapInArrow(call, "error boolean, result binary").collect()
    result = pickle.loads(row["result"])
    if row["error"]:
        raise result
    return result  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Call:
    function: bytes

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import cloudpickle
        import pyarrow as pa

        for _ in batches:
            try:
                found, is_error = pickle.loads(self.function)(), False
            except Exception as error:  # noqa: BLE001  (it is raised where the call was made)
                found, is_error = error, True
            columns = {
                "error": pa.array([is_error]),
                "result": pa.array([cloudpickle.dumps(found)], pa.binary()),
            }
            yield pa.RecordBatch.from_pydict(columns)
