"""A start of Spark that nobody wants any more ends at once, and leaves no process and no file."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.late_spark import never_ready

ROOT = Path(__file__).resolve().parents[2]
DRIVER = """
    import os, sys, threading, time
    from pathlib import Path
    import psutil
    from ml_platform.errors import ResourceStartError
    from ml_platform.resources.gang_lease import GangLease
    from ml_platform.resources.leases import Scope, opened
    from ml_platform.resources.spark_lease import SparkLease
    from ml_platform.specs.placements import Placement, SparkPlacement
    from ml_platform.specs.resources import HorovodSpec, SparkSpec

    submitted, how = Path(os.environ["SUBMITTED"]), sys.argv[1]
    placement = Placement(spark=SparkPlacement(master="local[2]", driver_memory_mib=512))
    scope = Scope(name="test", run="run", placement=placement)
    lease, ranks = SparkLease(SparkSpec(), scope), HorovodSpec(ranks=1, backend="spark")
    gang = GangLease(ranks, scope)
    lease.start()
    while not submitted.exists():
        time.sleep(0.01)
    gang.start()  # waits for its turn
    said = []
    def waits() -> None:
        try:
            with lease.use(SparkSpec(), task="work"):
                pass
        except ResourceStartError as error:
            said.append(str(error))
    waiting = threading.Thread(target=waits)
    waiting.start()
    lease.cancel("another task")
    assert waiting.is_alive()
    for resource in (gang, lease):
        if how == "cancelled":
            resource.cancel()
        resource.close()
    waiting.join()
    print(said, psutil.Process().children(recursive=True))
"""


def at_once(driver: str, folder: Path, *words: str, **environment: str) -> str:
    """What a driver printed, after it left no file anywhere."""
    (folder / "tmp").mkdir()
    own = {"PYTHONPATH": str(ROOT), "ML_PLATFORM_HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(driver), *words],
        env={**os.environ, **own, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list((folder / "home" / "scratch").iterdir()) == []
    assert list((folder / "tmp").iterdir()) == []
    return done.stdout


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_a_jvm_that_is_waited_for_is_ended_and_who_waits_is_told(how: str, tmp_path: Path) -> None:
    """Another resource that waits for its turn starts none."""
    said = at_once(DRIVER, tmp_path, how, **never_ready(tmp_path))
    assert said == "['Spark was not started: the run that asked for it was stopped'] []\n"


MASTER = """
    import os, time
    from pathlib import Path
    import psutil
    from ml_platform.resources.leases import Scope
    from ml_platform.resources.spark_lease import SparkLease
    from ml_platform.specs.placements import Placement, SparkPlacement
    from ml_platform.specs.resources import SparkSpec
    from pyspark import SparkContext

    conf = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    spark = SparkPlacement(master="spark://127.0.0.1:1", driver_memory_mib=512, conf=conf)
    lease = SparkLease(SparkSpec(), Scope(name="test", run="run", placement=Placement(spark=spark)))
    lease.start()
    log = Path(os.environ["ML_PLATFORM_HOME"], "runs", "run", "spark.log")
    while not (log.exists() and "Failed to connect to master" in log.read_text()):
        time.sleep(0.05)
    (jvm,) = psutil.Process().children()
    own = f"-Djava.io.tmpdir={os.environ['ML_PLATFORM_HOME']}/scratch/"
    print(any(word.startswith(own) for word in jvm.cmdline()))
    lease.close()
    print(jvm.is_running(), SparkContext._gateway, SparkContext._active_spark_context)
"""


@pytest.mark.spark
def test_a_jvm_that_waits_for_its_master_is_ended(tmp_path: Path) -> None:
    """Spark tries for a minute. Its libraries and folders go too, and the next application may start."""
    assert at_once(MASTER, tmp_path) == "True\nFalse None None\n"
