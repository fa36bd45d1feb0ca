"""The Spark application: adopted when live, quiet, cancelled by group, gone with its driver."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from ml_platform.errors import ResourceStartError
from ml_platform.resources import spark as spark_module
from ml_platform.resources.java import check_java, class_archive
from ml_platform.resources.spark import cancel_group, open_session, task_session
from ml_platform.specs.placements import SparkPlacement
from ml_platform.specs.resources import SparkSpec

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]
DRIVER = """
    import sys
    from ml_platform.resources.spark import open_session
    from ml_platform.specs.placements import SparkPlacement

    def chatter(batches):
        from ml_platform.errors import nearest          # the project is importable on workers
        for batch in batches:
            print("tensorflow says hello", file=sys.stderr)
            yield batch

    conf = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    placement = SparkPlacement(master="local[1]", driver_memory_mib=512, conf=conf)
    with open_session(placement) as spark:
        spark.sql("create table t as select 1 as x")     # warehouse and catalog leave no litter
        assert spark.range(5).mapInArrow(chatter, "id long").count() == 5
        assert spark.conf.get("spark.sql.ansi.enabled") == "true"
        address = spark.sparkContext.getConf().get("spark.driver.host")
        jvm = spark.sparkContext._gateway.proc.pid
    print(address, jvm, flush=True)
    with open_session(placement) as spark:               # the second application has a JVM of its own
        print(spark.sparkContext._gateway.proc.pid, flush=True)
        sys.stdin.read()
"""


def driver(folder: Path) -> subprocess.Popen[str]:
    (folder / "driver.py").write_text(textwrap.dedent(DRIVER))
    (folder / "work").mkdir()
    return subprocess.Popen(
        [sys.executable, str(folder / "driver.py")],
        cwd=folder / "work",
        env={**psutil.Process().environ(), "PYTHONPATH": str(ROOT), "ML_PLATFORM_HOME": str(folder / "home")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
@pytest.mark.spark
def test_an_application_is_quiet_leaves_no_litter_and_dies_with_its_driver(tmp_path: Path) -> None:
    """kill -9 closes the pipe that the JVM watches; nothing else tells it."""
    process = driver(tmp_path)
    assert process.stdout is not None
    try:
        address, first = process.stdout.readline().split()
        second = int(process.stdout.readline())
    finally:
        process.kill()
        rest, errors = process.communicate()
    assert (rest, errors) == ("", "")
    assert address == "127.0.0.1"
    assert not psutil.pid_exists(int(first))
    if psutil.pid_exists(second):
        psutil.Process(second).wait(timeout=60)
    assert not list((tmp_path / "work").iterdir())
    log = (tmp_path / "home" / "logs" / "spark.log").read_text()
    assert "tensorflow says hello" in log
    assert "shared archive" not in log  # which a JVM says when set-up's does not fit


@pytest.mark.spark
def test_a_live_session_is_adopted_and_not_stopped(spark: SparkSession) -> None:
    found: list[bool] = []

    def adopt() -> None:
        with open_session(SparkPlacement(master="local[1]")) as adopted:
            found.append(adopted.sparkContext is spark.sparkContext)

    adopt()
    other = threading.Thread(target=adopt)  # there no session is active
    other.start()
    other.join()
    assert found == [True, True]
    assert spark.range(3).count() == 3


@pytest.mark.spark
def test_a_task_has_its_own_settings_and_views_and_leaves_its_thread_clean(spark: SparkSession) -> None:
    context = spark.sparkContext
    spec = SparkSpec(conf={"spark.sql.shuffle.partitions": "3"})
    before = spark.conf.get("spark.sql.shuffle.partitions")
    with task_session(spark, spec, group="run/one") as session:
        session.range(1).createOrReplaceTempView("mine")
        assert session.conf.get("spark.sql.shuffle.partitions") == "3"
        assert context.getLocalProperty("spark.jobGroup.id") == "run/one"
        assert context.getLocalProperty("spark.scheduler.pool") == "run/one"
    assert spark.conf.get("spark.sql.shuffle.partitions") == before
    assert not spark.catalog.tableExists("mine")
    assert context.getLocalProperty("spark.jobGroup.id") is None
    assert context.getLocalProperty("spark.scheduler.pool") is None


@pytest.mark.spark
def test_settings_that_a_session_refuses_leave_nothing_on_its_thread(spark: SparkSession) -> None:
    spec = SparkSpec(conf={"spark.executor.memory": "1g"})
    with pytest.raises(Exception, match="CANNOT_MODIFY_CONFIG"), task_session(spark, spec, group="run/no"):
        pytest.fail("it was opened")
    assert spark.sparkContext.getLocalProperty("spark.scheduler.pool") is None


@pytest.mark.spark
def test_threads_of_a_task_share_its_session_whichever_uses_it_first(spark: SparkSession) -> None:
    """It is made then."""
    both = threading.Barrier(2)

    def make(name: str) -> None:
        both.wait()
        session.range(1).createOrReplaceTempView(name)

    with task_session(spark, SparkSpec(), group="run/shared") as session:
        threads = [threading.Thread(target=make, args=(name,)) for name in ("left", "right")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert isinstance(session, type(spark))
        assert {table.name for table in session.catalog.listTables()} == {"left", "right"}
        assert session.newSession().catalog.listTables() == []
        with pytest.raises(AttributeError, match="no_such_thing"):
            _ = session.no_such_thing  # type: ignore[attr-defined]


@pytest.mark.spark
def test_cancelling_a_group_ends_its_jobs_and_no_other(spark: SparkSession, tmp_path: Path) -> None:
    """The cancelled task sleeps in a Python worker; jobs that it would start next do not start either."""
    from pyspark.errors import PySparkException

    started = tmp_path / "started"

    def sleeps(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import time

        started.touch()
        time.sleep(600)
        yield from batches

    failures: list[BaseException] = []

    def victim() -> None:
        with task_session(spark, SparkSpec(), group="run/victim") as session:
            for _ in range(2):
                try:
                    session.range(0, 1, 1, 1).mapInArrow(sleeps, "id long").collect()
                except (PySparkException, Exception) as error:  # noqa: BLE001  (Spark raises two kinds)
                    failures.append(error)

    thread = threading.Thread(target=victim)
    thread.start()
    waiter = threading.Event()
    while not started.exists() and thread.is_alive():
        waiter.wait(0.05)
    with task_session(spark, SparkSpec(), group="run/other") as session:
        cancel_group(spark, "run/victim")
        assert session.range(100).count() == 100
    thread.join(60)
    assert not thread.is_alive()
    assert len(failures) == 2
    assert all("cancel" in str(failure).lower() for failure in failures)


@pytest.mark.spark
def test_settings_that_the_jvm_refuses_are_an_error_with_the_log(tmp_path: Path) -> None:
    code = """
        from ml_platform.errors import ResourceStartError
        from ml_platform.resources.spark import open_session
        from ml_platform.specs.placements import SparkPlacement
        try:
            with open_session(SparkPlacement(master="lokal", driver_memory_mib=512)):
                pass
        except ResourceStartError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**psutil.Process().environ(), "PYTHONPATH": str(ROOT), "ML_PLATFORM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Spark did not start with master lokal\n")
    assert f"log: {tmp_path}/logs/spark.log" in done.stdout
    assert "start with spark, k8s, or local" in done.stdout.split("last lines", 1)[1]
    assert done.stderr == ""
    assert not list((tmp_path / "scratch").iterdir())


def test_java_that_is_missing_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ResourceStartError, match=r"there is no Java(.|\n)*install Java 17"):
        check_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(ResourceStartError, match=r"where JAVA_HOME points(.|\n)*nowhere/bin/java"):
        check_java()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('openjdk version "11.0.2" 2019-01-15', r"too old(.|\n)*Java 17 or later(.|\n)*Java 11"),
        ('java version "1.8.0_292"', r"too old(.|\n)*Java 8"),
        ("no idea", "does not say its version"),
    ],
)
def test_java_that_is_too_old_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, message: str
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ResourceStartError, match=message):
        check_java()


def test_java_that_is_new_enough_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_java().version == 21


def test_a_whole_archive_of_classes_alone_is_used(tmp_path: Path) -> None:
    """A JVM crashes on one that was cut short."""
    assert class_archive(tmp_path) is None
    (tmp_path / "spark-classes-3.jsa").write_bytes(b"ab")
    assert class_archive(tmp_path) is None
    whole = tmp_path / "spark-classes-2.jsa"
    whole.write_bytes(b"ab")
    assert class_archive(tmp_path) == whole


@pytest.mark.spark
def test_the_jvm_of_a_session_maps_the_archive(spark: SparkSession) -> None:
    process = psutil.Process(spark.sparkContext._gateway.proc.pid)  # type: ignore[union-attr]
    archive = class_archive()
    assert (f"-XX:SharedArchiveFile={archive}" in process.cmdline()) is (archive is not None)


def test_an_environment_behind_a_link_is_no_part_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its packages are not sent to executors."""
    installed, own = tmp_path / "real" / "lib" / "site-packages", tmp_path / "own"
    installed.mkdir(parents=True)
    own.mkdir()
    (tmp_path / "venv").symlink_to(tmp_path / "real")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "venv" / "lib" / "site-packages"), str(own)])
    assert spark_module._project_paths()[1:] == [str(own)]
