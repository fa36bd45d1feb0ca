"""The page about clusters: its placements are placements, its settings are Spark's, its fields exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ml_platform.resources.java import class_archive
from ml_platform.resources.slots import spark_slots
from ml_platform.resources.spark import _settings
from ml_platform.specs.placements import HorovodPlacement, Placement, SparkPlacement

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clusters.md").read_text()
BLOCKS = {
    placement.spark.master.partition(":")[0]: placement
    for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for placement in [Placement.model_validate(yaml.safe_load(text))]
}
"""Placements on the page, by the kind of their cluster."""
OURS = {
    "spark.app.name": "ml-platform",
    "spark.driver.memory": "2048m",
    "spark.scheduler.mode": "FAIR",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.catalogImplementation": "in-memory",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "16384",
    "spark.executorEnv.TF_CPP_MIN_LOG_LEVEL": "3",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
}
"""What every application of ours is told, beside folders of this machine."""
ARCHIVES = {
    "spark": {"spark.archives": "/mnt/shared/environment.tar.gz#environment"},
    "yarn": {"spark.yarn.dist.archives": "hdfs:///environments/environment.tar.gz#environment"},
    "k8s": {"spark.archives": "s3a://bucket/environment.tar.gz#environment"},
}
ENTRIES = (
    "org.apache.spark.internal.config.package$",
    "org.apache.spark.internal.config.Python$",
    "org.apache.spark.internal.config.UI$",
    "org.apache.spark.internal.config.Network$",
    "org.apache.spark.deploy.yarn.config.package$",
    "org.apache.spark.deploy.k8s.Config$",
)
"""Classes of Spark that declare settings, those of YARN and Kubernetes too: all are in PySpark's JARs."""
FAMILIES = (
    r"spark\.(app\.name|master|remote|driver\.defaultJavaOptions)",
    r"spark\.executorEnv\.\w+",
    r"spark\.yarn\.appMasterEnv\.\w+",
    r"spark\.(executor|worker)\.resource\.gpu\.(amount|discoveryScript|vendor)",
    r"spark\.task\.resource\.gpu\.amount",
    r"spark\.ssl\.enabled",
    r"spark\.kubernetes\.authenticate",
)
"""Those of its launcher, and those that Spark puts together from parts, as its documentation has them."""


def test_every_placement_on_the_page_can_be_used_and_has_slots_for_its_ranks() -> None:
    files = [path.read_text() for path in (ROOT / "deployments" / "placements").glob("*.yaml")]
    shipped = [Placement.model_validate(yaml.safe_load(text)) for text in files]
    for placement in [*BLOCKS.values(), *shipped]:
        if placement.horovod.backend == "spark":
            slots = spark_slots(placement)
            assert slots is not None
            assert slots >= placement.horovod.ranks


def test_every_field_in_the_table_is_there() -> None:
    fields = {"spark": SparkPlacement.model_fields, "horovod": HorovodPlacement.model_fields}
    named = re.findall(r"`(spark|horovod)\.(\w+)`", PAGE.split("## Fields")[1].split("\n## ")[0])
    assert len(named) >= 10
    assert not [f"{group}.{name}" for group, name in named if name not in {*fields[group], "authenticate"}]


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_placement_on_the_page_gives_exactly_its_settings(kind: str, tmp_path: Path) -> None:
    """Ours, its own, and the environment in the way of its cluster."""
    placement = BLOCKS[kind].spark
    settings = _settings(placement, tmp_path)
    assert settings.pop("spark.sql.warehouse.dir").startswith("file:///")
    if class_archive():
        del settings["spark.driver.defaultJavaOptions"]
    assert settings == {**OURS, "spark.master": placement.master, **ARCHIVES[kind], **placement.conf}


@pytest.mark.spark
def test_spark_knows_every_setting_that_is_written_or_sent(spark: SparkSession, tmp_path: Path) -> None:
    """By the tables of the Spark that is installed: a wrong name would be ignored without a word."""
    pages = [PAGE, *(page.read_text() for page in ROOT.glob("deployments/**/*.*"))]
    named = {
        name
        for page in pages
        for name in re.findall(r"(?<!apache\.)\bspark\.\w+[\w.]*\w", page)
        if name.removeprefix("spark.") not in SparkPlacement.model_fields
    }
    gpus = SparkPlacement(master="k8s://head:443", gpu=True)
    sent = {name for each in (*BLOCKS.values(), gpus) for name in _settings(_spark_of(each), tmp_path)}
    assert {"spark.kubernetes.namespace", "spark.yarn.dist.archives"} <= named | sent
    jvm: Any = spark.sparkContext._jvm
    for name in ENTRIES:
        jvm.java.lang.Class.forName(name)
    find = jvm.org.apache.spark.internal.config.ConfigEntry.findEntry
    assert not [
        name
        for name in sorted(named | sent)
        if find(name) is None and not any(re.fullmatch(family, name) for family in FAMILIES)
    ]


def _spark_of(placement: Placement | SparkPlacement) -> SparkPlacement:
    return placement.spark if isinstance(placement, Placement) else placement
