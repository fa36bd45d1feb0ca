"""The page about clusters: its placements are placements, and its table names fields that exist."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from ml_platform.resources.slots import spark_slots
from ml_platform.specs.placements import HorovodPlacement, Placement, SparkPlacement

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clusters.md").read_text()


def test_every_placement_on_the_page_can_be_used_and_has_slots_for_its_ranks() -> None:
    files = [path.read_text() for path in (ROOT / "deployments" / "placements").glob("*.yaml")]
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    for text in [*blocks, *files]:
        placement = Placement.model_validate(yaml.safe_load(text))
        if placement.horovod.backend == "spark":
            slots = spark_slots(placement)
            assert slots is not None
            assert slots >= placement.horovod.ranks


def test_every_field_in_the_table_is_there() -> None:
    fields = {"spark": SparkPlacement.model_fields, "horovod": HorovodPlacement.model_fields}
    named = re.findall(r"`(spark|horovod)\.(\w+)`", PAGE.split("## Fields")[1].split("\n## ")[0])
    assert len(named) >= 10
    assert not [f"{group}.{name}" for group, name in named if name not in {*fields[group], "authenticate"}]
