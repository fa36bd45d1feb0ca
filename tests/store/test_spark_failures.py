"""Texts of Spark's errors, as they were seen, and what becomes of them."""

from __future__ import annotations

import pytest

from ml_platform.errors import DataError, ResourceStartError, StoreError
from ml_platform.store.spark_failures import spark_failures

WORKER = """An exception was thrown from the Python worker:
Traceback (most recent call last):
  File "apply.py", line 32, in f
    raise DataError("column 'x' is missing")
ml_platform.errors.{name}: column 'x' is missing
  wanted: x
  got: y
  try: did you mean 'y'?

\tat org.apache.spark.Frame(Frame.scala:1)
"""
JVM = """An error occurred while calling o102.collectToPython.
: org.apache.spark.SparkException: [{condition}] It failed.  SQLSTATE: KD001
\tat org.apache.spark.Frame(Frame.scala:1)
Caused by: java.io.IOException: the inner reason
\t... 12 more
"""


def fail(text: str) -> None:
    from pyspark.errors import PySparkException

    with spark_failures("it was not written"):
        raise PySparkException(text)


@pytest.mark.parametrize("kind", [DataError, ResourceStartError])
def test_what_a_worker_raised_comes_back_with_all_it_said(kind: type[DataError]) -> None:
    with pytest.raises(kind) as raised:
        fail(WORKER.format(name=kind.__name__))
    assert str(raised.value).splitlines() == [
        "column 'x' is missing",
        "  wanted: x",
        "  got: y",
        "  try: did you mean 'y'?",
    ]
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize(
    ("condition", "kind"), [("FAILED_READ_FILE.NO_HINT", DataError), ("OTHER", StoreError)]
)
def test_other_failures_keep_their_reasons_without_frames(condition: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as raised:
        fail(JVM.format(condition=condition))
    assert str(raised.value).splitlines() == [
        "it was not written",
        f"  | [{condition}] It failed.",
        "  | the inner reason",
    ]
