"""Spark as a lease: a cancelled task may run again; what is lost is told from what user code raises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from pyspark import SparkContext
from pyspark.errors import AnalysisException

from ml_platform.errors import DataError, InfrastructureError
from ml_platform.resources.leases import Scope
from ml_platform.resources.spark_lease import SparkLease
from ml_platform.specs.placements import Placement
from ml_platform.specs.resources import SparkSpec

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lease(spark: SparkSession) -> Iterator[SparkLease]:
    """Adopts the tests' own session."""
    made = SparkLease(SparkSpec(), Scope(name="test", run="run", placement=Placement()))
    yield made
    made.close()


def run(lease: SparkLease, work: object) -> int:
    with lease.use(SparkSpec(), task="work") as session:
        return int(session.range(0, 4, 1, 1).mapInArrow(work, "id long").count())  # type: ignore[arg-type]


def fine(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches


def dies(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield from batches


def finds_bad_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    raise DataError("row 3 is bad", wanted="a number")
    yield from batches


def has_a_bug(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    raise ZeroDivisionError("a bug of the user's")
    yield from batches


def test_a_task_that_was_cancelled_runs_when_it_is_tried_again(lease: SparkLease) -> None:
    """Spark remembers a cancelled group: its later jobs never start."""
    with lease.use(SparkSpec(), task="work") as session:
        lease.cancel("another")
        assert session.range(3).count() == 3
        lease.cancel("work")
        with pytest.raises(Exception, match=r"(?i)cancel"):
            session.range(3).count()
    assert run(lease, fine) == 4


def test_a_worker_that_dies_is_no_bug_and_what_it_raises_is_itself(lease: SparkLease) -> None:
    with pytest.raises(InfrastructureError, match="Spark was lost while task work ran") as lost:
        run(lease, dies)
    assert type(lost.value) is InfrastructureError
    with pytest.raises(DataError, match=r"row 3 is bad\n  wanted: a number"):
        run(lease, finds_bad_rows)
    with pytest.raises(Exception, match="a bug of the user's") as bug:
        run(lease, has_a_bug)
    assert not isinstance(bug.value, InfrastructureError)
    assert run(lease, fine) == 4


def test_what_spark_says_is_read_after_its_jvm_has_ended(
    lease: SparkLease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exceptions ask a JVM for their text; who shows them comes after the lease was closed."""
    with (
        pytest.raises(AnalysisException, match="amuont") as typo,
        lease.use(SparkSpec(), task="w") as session,
    ):
        session.range(3).select("amuont")
    monkeypatch.setattr(SparkContext, "_jvm", None)
    assert "`amuont` cannot be resolved" in str(typo.value)


DRIVER = """
    import os, signal
    from ml_platform.errors import InfrastructureError
    from ml_platform.resources.leases import Scope
    from ml_platform.resources.spark_lease import SparkLease
    from ml_platform.specs.placements import Placement, SparkPlacement
    from ml_platform.resources.gang_lease import GangLease
    from ml_platform.specs.resources import HorovodSpec, SparkSpec

    ranks = HorovodSpec(ranks=1, backend="spark")
    placement = Placement(spark=SparkPlacement(master="local[1]", driver_memory_mib=512))
    lease = SparkLease(SparkSpec(), Scope(name="test", run="run", placement=placement))
    gang = GangLease(ranks, Scope(name="test", run="run", placement=placement))
    with gang.use(ranks, task="train") as first:
        pass
    try:
        with lease.use(SparkSpec(), task="work") as session:
            os.kill(session.sparkContext._gateway.proc.pid, signal.SIGKILL)
            session.sparkContext._gateway.proc.wait()
            lease.cancel()
            session.range(3).count()
    except InfrastructureError as error:
        print(error.what, error.got, sep="; ")
    with gang.use(ranks, task="train") as job:
        print("the same ranks" if job is first else "other ranks")
    gang.close()
    with lease.use(SparkSpec(), task="work") as session:
        print(session.range(3).count())
        pid = session.sparkContext._gateway.proc.pid
    lease.close()
    print(pid)
"""


@pytest.mark.long
def test_after_the_jvm_was_killed_the_next_task_has_another(tmp_path: Path) -> None:
    """As the kernel does when memory runs out. A cancel meanwhile is harmless, and so is closing. Ranks that
    were in its tasks are others, too."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DRIVER)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "ML_PLATFORM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, gang, rows, pid = done.stdout.splitlines()
    assert said == "Spark was lost while task work ran; its JVM ended"
    assert gang == "other ranks"
    assert rows == "3"
    assert not psutil.pid_exists(int(pid))
    assert list((tmp_path / "scratch").iterdir()) == []
