"""One rank in the caller's process: trains without Horovod, with the same rank function."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.tables import blobs, packed_dataset

SCRIPT = """
import json, sys
from pathlib import Path
sys.modules["horovod"] = None  # as on a machine where it is not built
from ml_platform.resources.horovod import open_job
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec
from ml_platform.specs.training import KerasSpec
from ml_platform.store.manifest import open_dataset
from tasks.loops import fit_keras

train, validation, logs = sys.argv[1:]
heard = []
with open_job(HorovodSpec(backend="in_process"), HorovodPlacement(), log_folder=Path(logs)) as job:
    spec = KerasSpec(hidden=(16,), epochs=4, patience=4)
    fitted = job.run(
        fit_keras, open_dataset(train), open_dataset(validation), spec, 3,
        on_metrics=lambda values, step: heard.append(step),
    ).rank0
import keras
Path(logs, "model.keras").write_bytes(fitted.model)
model = keras.saving.load_model(Path(logs, "model.keras"))
probabilities = model.predict_on_batch(__import__("numpy").zeros((2, 8), "float32"))
print(json.dumps({
    "steps": heard, "ranks": fitted.proof["ranks"], "loss": fitted.history["loss"],
    "optimizer": type(model.optimizer).__name__, "sums": [float(s) for s in probabilities.sum(axis=1)],
}))
"""


@pytest.mark.horovod
def test_trains_where_horovod_is_not_installed(tmp_path: Path) -> None:
    """The flow's own rank function; nothing but its result on stdout."""
    train = packed_dataset(tmp_path / "train", *blobs(600))
    validation = packed_dataset(tmp_path / "validation", *blobs(100, seed=5))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SCRIPT, train.uri, validation.uri, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == [0, 1, 2, 3]
    assert result["ranks"] == 1
    assert result["loss"][-1] < result["loss"][0]
    assert result["optimizer"] == "Adam"
    assert result["sums"] == pytest.approx([1, 1])
    assert "epoch 4/4" in (tmp_path / "rank-0.log").read_text()
    assert "Warning" not in done.stderr
