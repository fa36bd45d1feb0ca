"""What every family promises: raw rows in, the same probabilities or numbers out, wherever it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.errors import DataError
from ml_platform.inference.raw_model import _load_pyfunc, load_raw_model, write_raw_model
from ml_platform.inference.score import score_frame
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import FeatureState, SplitSpec
from ml_platform.specs.training import MLlibSpec, SklearnSpec
from ml_platform.training import spark_pipeline
from ml_platform.training.one_node import train_estimator
from ml_platform.training.spark_pipeline import train_pipeline
from tests.inference.builders import (
    cancer,
    contract_of,
    diabetes,
    digits,
    features_of,
    number_contract,
    number_state,
    state_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

Case = tuple[str, Any]
"""A family, and the spec that it trains by."""

SMALL: dict[str, Case] = {
    "sklearn-linear": ("sklearn", SklearnSpec(estimator="linear")),
    "sklearn-forest": ("sklearn", SklearnSpec(estimator="forest", trees=20)),
    "sklearn-boosting": ("sklearn", SklearnSpec(estimator="boosting", trees=15, rate=0.3)),
    "mllib-linear": ("mllib", MLlibSpec(estimator="linear", steps=40)),
    "mllib-components": ("mllib", MLlibSpec(estimator="linear", components=8)),
    "mllib-forest": ("mllib", MLlibSpec(estimator="forest", trees=10)),
    "mllib-boosting": ("mllib", MLlibSpec(estimator="boosting", trees=6, depth=3, rate=0.4)),
    "mllib-boosted-components": (
        "mllib",
        MLlibSpec(estimator="boosting", trees=6, depth=3, rate=0.4, components=8),
    ),
}
LEARN: dict[str, Callable[..., Any]] = {
    "sklearn": lambda spark, *rest: train_estimator(*rest),
    "mllib": train_pipeline,
}
TABLES: dict[str, Callable[[], pa.Table]] = {"binary": cancer, "multiclass": digits, "regression": diabetes}
SHARE = {"binary": 400, "multiclass": 1200, "regression": 300}
"""Rows to train on; the rest is held out."""


class Trained:
    """A family that has learnt one problem: its folder, and what it left behind."""

    def __init__(self, spark: SparkSession, case: Case, problem: str, folder: Path) -> None:
        self.family, self.spec = case
        self.problem, self.table = problem, TABLES[problem]()
        self.state = number_state(self.table) if problem == "regression" else state_of(self.table)
        self.contract = (number_contract if problem == "regression" else contract_of)(self.table)
        self.rows = self.table[SHARE[problem] :]
        parts = self.table[: SHARE[problem]], self.rows
        self.parts = tuple(packed(spark, part, self.state) for part in parts)
        self.pipelines: list[Any] = []
        with _remembered(self.pipelines):
            self.learned = learn(spark, self.family, self.parts, self.state, self.spec)
        self.folder = as_folder(folder, self.family, self.learned.model, self.state, self.contract)

    def expected(self) -> NDArray[np.float64]:
        """What the trained model says of the rows held out, in the process that loads its folder."""
        return np.asarray(load_raw_model(self.folder).predict(self.rows), np.float64)


@contextmanager
def _remembered(pipelines: list[Any]) -> Iterator[None]:
    """What MLlib itself fitted, of which the product keeps arrays alone."""
    fit = spark_pipeline._fit

    def fit_and_keep(*given: Any) -> Any:
        pipelines.append(fit(*given))
        return pipelines[-1]

    with patch.object(spark_pipeline, "_fit", fit_and_keep):
        yield


def learn(
    spark: SparkSession, family: str, parts: tuple[Dataset, ...], state: FeatureState, spec: Any
) -> Any:
    return LEARN[family](spark, *parts, state, spec)


def as_folder(folder: Path, family: str, model: bytes, state: FeatureState, contract: Any) -> Path:
    file = folder.with_suffix(".model")
    file.write_bytes(model)
    return write_raw_model(
        folder,
        family=family,
        model_file=file,
        state=state,
        split=SplitSpec(),
        contract=contract,
        lineage={},
    )


def packed(spark: SparkSession, table: pa.Table, state: FeatureState) -> Dataset:
    """Features and labels of a table as a data set, in two files."""
    from ml_platform.store.datasets import write_dataset

    features, labels = features_of(table, state)
    rows = pa.table({"label": labels, "features": pa.array([row.tobytes() for row in features], pa.binary())})
    frame = spark.createDataFrame(rows).coalesce(2)
    return write_dataset(frame, name="packed", packed={"features": state.width})


PROBLEMS = [
    *[(name, problem) for name in SMALL if name.startswith("sklearn") for problem in TABLES],
    ("mllib-linear", "binary"),
    ("mllib-components", "regression"),
    *[
        pytest.param(pair, marks=pytest.mark.long)
        for pair in (
            ("mllib-linear", "multiclass"),
            ("mllib-boosting", "binary"),
            ("mllib-forest", "multiclass"),
            ("mllib-forest", "regression"),
            ("mllib-boosted-components", "regression"),
        )
    ],
]


@pytest.fixture(scope="module", params=PROBLEMS, ids=lambda case: f"{case[0]}-{case[1]}")
def trained(
    request: pytest.FixtureRequest, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    name, problem = request.param
    return Trained(spark, SMALL[name], problem, tmp_path_factory.mktemp("family") / "model")


def test_predicts_rows_that_it_has_not_seen(trained: Trained) -> None:
    """Better than chance by far; and the loss that it reports is the loss that its file has."""
    _, labels = features_of(trained.rows, trained.state)
    predicted = trained.expected()
    name, reported = next((n, v[-1]) for n, v in trained.learned.history.items() if n.startswith("valid"))
    if trained.problem == "regression":
        assert predicted.shape == (len(labels), 1)
        target = trained.state.target
        standardised = (predicted[:, 0] - target.center) / target.scale
        loss = np.sqrt(np.square(standardised - labels).mean())
        assert loss < 0.9 * labels.std()
    else:
        assert predicted.shape == (len(labels), len(trained.state.classes))
        np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-5)
        assert (predicted.argmax(axis=1) == labels).mean() > 0.85
        loss = -np.log(predicted[np.arange(len(labels)), labels]).mean()
    assert name == f"validation-{'rmse' if trained.problem == 'regression' else 'log_loss'}"
    assert reported == pytest.approx(loss, rel=1e-5)


def test_spark_and_mlflow_agree_with_the_process(trained: Trained, spark: SparkSession) -> None:
    """To 1e-5, row by row: of classes every probability, of numbers in standard deviations."""
    expected = trained.expected()
    alone = _load_pyfunc(str(trained.folder)).predict(trained.rows.to_pandas())
    numbered = trained.rows.append_column("row", pa.array(range(len(trained.rows))))
    contract = load_raw_model(trained.folder).contract
    scored = score_frame(spark.createDataFrame(numbered).repartition(3), trained.folder, contract).toArrow()
    there = scored.sort_by("row").to_pandas()
    for frame in (alone, there):
        np.testing.assert_allclose(matrix(frame, trained.state), expected / unit(trained), atol=1e-5)


def test_the_file_says_of_every_row_what_mllibs_own_pipeline_says(
    trained: Trained, spark: SparkSession
) -> None:
    """Without Spark, to 1e-5: every probability, and numbers in standard deviations."""
    if trained.family != "mllib":
        pytest.skip("no Pipeline")
    from pyspark.ml.functions import vector_to_array
    from pyspark.ml.linalg import Vectors

    features, _ = features_of(trained.rows, trained.state)
    rows = [(at, Vectors.dense(row)) for at, row in enumerate(features.tolist())]
    said = trained.pipelines[0].transform(spark.createDataFrame(rows, ["row", "features"]))
    column = "prediction" if trained.problem == "regression" else vector_to_array("probability")
    found = said.orderBy("row").select(column).collect()
    theirs = np.array([np.atleast_1d(row[0]) for row in found])
    ours = trained.expected()
    if trained.state.target is not None:
        ours = (ours - trained.state.target.center) / trained.state.target.scale
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_file_of_other_features_is_refused(trained: Trained, tmp_path: Path) -> None:
    """Said at loading, not at the first row."""
    narrow = trained.state.model_copy(update={"numeric": trained.state.numeric[1:]})
    folder = as_folder(tmp_path / "narrow", trained.family, trained.learned.model, narrow, trained.contract)
    with pytest.raises(DataError, match="does not fit its features") as caught:
        load_raw_model(folder)
    assert f"wanted: {narrow.width} features" in str(caught.value)


def test_noise_is_refused(trained: Trained, tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "noise", trained.family, b"noise", trained.state, trained.contract)
    with pytest.raises(DataError, match="cannot be opened"):
        load_raw_model(folder)


@pytest.mark.parametrize(
    "name", ["sklearn-forest", "sklearn-boosting", pytest.param("mllib-forest", marks=pytest.mark.long)]
)
def test_the_same_seed_gives_the_same_trees(spark: SparkSession, name: str, tmp_path: Path) -> None:
    first, second = (Trained(spark, SMALL[name], "binary", tmp_path / str(run)) for run in range(2))
    np.testing.assert_array_equal(first.expected(), second.expected())


@pytest.mark.parametrize(
    "name",
    [
        "sklearn-linear",
        "sklearn-forest",
        "sklearn-boosting",
        pytest.param("mllib-linear", marks=pytest.mark.long),
    ],
)
def test_balanced_classes_count_alike(spark: SparkSession, name: str, tmp_path: Path) -> None:
    """One row in twenty is of the second class: weighted, it is thought more likely."""
    rng = np.random.default_rng(0)
    labels = rng.random(800) < 0.05
    table = pa.table({"x": rng.normal(labels * 1.0, 1.0), "label": np.where(labels, "yes", "no").tolist()})
    state, means = state_of(table), {}
    parts = packed(spark, table[:500], state), packed(spark, table[500:], state)
    family, spec = SMALL[name]
    for weight in ("none", "balanced"):
        learned = learn(spark, family, parts, state, spec.model_copy(update={"class_weight": weight}))
        folder = as_folder(tmp_path / weight, family, learned.model, state, contract_of(table))
        means[weight] = load_raw_model(folder).predict(table[500:])[:, 1].mean()
    assert means["none"] < 0.1
    assert means["balanced"] > 2 * means["none"]


@pytest.mark.parametrize("name", ["sklearn-linear", "mllib-linear"])
def test_a_class_without_rows_is_refused_by_name(spark: SparkSession, name: str) -> None:
    """The outputs after it would be those of other classes."""
    state = state_of(digits())
    no_sevens = digits().filter(pa.compute.not_equal(digits().column("label"), "7"))
    parts = packed(spark, no_sevens[:600], state), packed(spark, digits()[1500:], state)
    family, spec = SMALL[name]
    with pytest.raises(DataError, match="class '7' has no row to train on"):
        learn(spark, family, parts, state, spec)


def matrix(frame: Any, state: FeatureState) -> NDArray[np.float64]:
    """Predictions of a frame as the model gives them; numbers in standard deviations of the label."""
    if state.target is not None:
        return np.asarray(frame["prediction"], np.float64)[:, None] / state.target.scale
    rows = [dict(row) for row in frame["probabilities"]]
    return np.array([[row[name] for name in state.classes] for row in rows])


def unit(trained: Trained) -> float:
    return trained.state.target.scale if trained.state.target is not None else 1.0
