"""MLflow on SQLite, a database for each test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.cli.services import MLFLOW_SETTINGS
from ml_platform.inference.raw_model import write_raw_model
from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.references import Dataset, Model
from ml_platform.specs.tables import CategoryFeature, FeatureState, NumericFeature, SplitSpec
from ml_platform.specs.tracking import TrackingRun
from ml_platform.tracking import open_tracking

CONTRACT = Contract(
    columns=(
        Column(name="age", type="integer"),
        Column(name="income", type="float"),
        Column(name="city", type="string"),
        Column(name="churned", type="string", nullable=False),
    ),
    label="churned",
)
STATE = FeatureState(
    numeric=(
        NumericFeature(name="age", fill=40, center=40, scale=10),
        NumericFeature(name="income", fill=1000, center=1000, scale=500),
    ),
    categories=(CategoryFeature(name="city", values=("Bern", "Oslo")),),
    classes=("no", "yes"),
    class_counts=(60, 40),
    label="churned",
)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test, or MLflow's first use in it, sets in the environment ends with the test."""
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def home(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the platform with an MLflow database of its own."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copyfile(migrated, folder / "mlflow.db")
    monkeypatch.setenv("ML_PLATFORM_HOME", str(folder))
    return folder


@pytest.fixture
def run(home: Path) -> Iterator[TrackingRun]:
    with opened() as run:
        yield run


def opened() -> AbstractContextManager[TrackingRun]:
    return open_tracking(experiment="retrain", run_name="brave-otter", tags={"flow_run": "f-1"})


@pytest.fixture
def train() -> Dataset:
    return Dataset(
        uri="file:///data/train/0a1b", contract=CONTRACT, rows=100, bytes=4096, fingerprint="ab" * 32
    )


@pytest.fixture(scope="session")
def example() -> pa.Table:
    return pa.table(
        {
            "age": pa.array([30, None, 50], pa.int64()),
            "income": pa.array([900.0, 2000.0, None]),
            "city": ["Bern", None, "Rome"],
            "churned": ["no", "yes", "no"],
        }
    )


@pytest.fixture(scope="session")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw model of real trees."""
    import xgboost

    folder = tmp_path_factory.mktemp("trees")
    rng = np.random.default_rng(7)
    features = rng.normal(size=(100, STATE.width)).astype(np.float32)
    rows = xgboost.DMatrix(features, label=features[:, 0] > 0)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, rows, num_boost_round=3)
    booster.save_model(folder / "model.ubj")
    return write_raw_model(
        folder / "raw",
        family="xgboost",
        model_file=folder / "model.ubj",
        state=STATE,
        split=SplitSpec(),
        contract=CONTRACT,
        lineage={"train": "ab" * 32},
    )


@pytest.fixture
def model(run: TrackingRun, raw_folder: Path, train: Dataset, example: pa.Table) -> Model:
    return log(run, raw_folder, train, example)


def log(run: TrackingRun, folder: Path, train: Dataset, example: pa.Table) -> Model:
    return run.log_model(
        folder=folder,
        family="xgboost",
        contract=CONTRACT,
        classes=STATE.classes,
        train=train,
        ranks=2,
        example=example,
    )


@contextmanager
def serving(folder: Path, port: int) -> Iterator[str]:
    """A real `mlflow server` on a database and artifacts of its own."""
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    with (folder / "server.log").open("ab") as said:
        server = subprocess.Popen(
            [*command, *stores, "--workers", "1"],
            stdout=said,
            stderr=said,
            cwd=folder,
            env={**os.environ, **MLFLOW_SETTINGS},
            start_new_session=True,
        )
    try:
        _until_it_answers(port, server)
        yield uri
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


def _until_it_answers(port: int, server: subprocess.Popen[bytes]) -> None:
    from urllib3 import PoolManager, Retry

    retry = Retry(total=None, connect=300, read=0, backoff_factor=0.1, backoff_max=0.2)
    assert PoolManager().request("GET", f"http://127.0.0.1:{port}/health", retries=retry).status == 200
    assert server.poll() is None
