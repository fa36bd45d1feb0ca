"""The network's place: importing its module costs no Keras."""

from __future__ import annotations

import subprocess
import sys


def test_rank_modules_are_light() -> None:
    """The driver imports the rank function, and TensorFlow stays out of its process."""
    script = "import sys, tasks.loops, ml_platform.resources.horovod; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"tensorflow", "keras", "horovod", "pyspark", "mlflow", "prefect", "pandas", "pyarrow"}
    assert not heavy & set(loaded.stdout.split())
