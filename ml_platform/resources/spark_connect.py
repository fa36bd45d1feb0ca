"""Spark Connect is refused before anything starts: what a run does with Spark needs a classic session."""

from __future__ import annotations

import os

from ml_platform.errors import ResourceStartError
from ml_platform.specs.placements import SparkPlacement

VARIABLES = ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED")
"""Where one of these is set, PySpark makes sessions of Spark Connect. A live one has set the second."""


def check_no_connect(placement: SparkPlacement) -> None:
    """Refuse what would lead to a session of Spark Connect.

    It has no broadcasts for models, no job groups to cancel, and says neither slots nor settings.

    Raises:
        ResourceStartError: The placement, or the environment, asks for one; says which.
    """
    conf = placement.conf
    asked = {
        "spark.master sc://…": placement.master.startswith("sc://"),
        "spark.remote": "spark.remote" in conf,
        "spark.api.mode": conf.get("spark.api.mode", "classic") != "classic",
        **{name: bool(os.environ.get(name)) for name in VARIABLES},
    }
    # Names alone: an address may hold a token.
    if got := [name for name, is_asked in asked.items() if is_asked]:
        raise ResourceStartError(
            f"tasks that use Spark need a classic session; {' and '.join(got)} would make it Spark Connect",
            wanted="a master: local[*], spark://…, yarn or k8s://…",
            hint="name the master in the placement, and unset variables of Spark Connect",
        )
