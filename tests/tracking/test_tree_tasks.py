"""Boosted trees on any table: dealt, checked, trained on Spark, and told about in MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.errors import DataError, ResourceStartError, SpecError
from ml_platform.resources.leases import Leases, Scope, using
from ml_platform.specs.placements import Placement
from ml_platform.specs.references import Dataset
from ml_platform.specs.training import XGBoostSpec
from ml_platform.specs.trees import BoostedTrees, RankingSpec, RegressionSpec, TreeColumns
from ml_platform.tracking import metrics
from ml_platform.tracking.server import client
from ml_platform.training import boosting
from ml_platform.training.boosting import check_device
from ml_platform.training.tree_rows import deal_rows, feature_names
from tasks.trees import train_classifier, train_ranker, train_regressor
from tests.inference.builders import cancer

if TYPE_CHECKING:
    import xgboost
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

SMALL = {"trees": 15, "depth": 3, "rate": 0.4, "patience": 3, "workers": 2}


@pytest.fixture(scope="module")
def tumours(spark: SparkSession) -> Dataset:
    """569 rows, 30 numbers with some of them empty, a class, a weight, and every fifth row held out."""
    table = cancer()
    names = [name for name in table.column_names if name != "label"]
    columns = {name: table.column(name) for name in names}
    columns[names[0]] = pa.array([None if row % 50 == 0 else row / 7 for row in range(569)], pa.float64())
    return _dataset(
        spark,
        {
            **columns,
            "ill": pa.array([int(label) for label in table.column("label").to_pylist()]),
            "held out": pa.array([row % 5 == 0 for row in range(569)]),
            "important": pa.array([1.0 + row % 3 for row in range(569)]),
        },
    )


@pytest.fixture(scope="module")
def searches(spark: SparkSession) -> Dataset:
    """60 queries of 8 rows: the first feature tells the relevance; every fourth query is held out."""
    random = np.random.default_rng(11)
    features = random.normal(size=(480, 3)).astype("<f4")
    relevance = np.clip(np.round(features[:, 0] + 1), 0, 3).astype("int64")
    query = np.arange(480) % 60
    return _dataset(
        spark,
        {
            "features": pa.array([row.tobytes() for row in features], pa.binary()),
            "relevance": relevance,
            "search": pa.array([f"query {number}" for number in query]),
            "held_out": pa.array((query % 4 == 0).tolist()),
        },
        packed={"features": 3},
    )


@pytest.fixture
def leases(spark: SparkSession, home: Path) -> Iterator[None]:
    """What the tasks' recipes are opened from: the live session, and the MLflow of this test."""
    held = Leases(Scope(name="trees", run="brave-otter", placement=Placement()))
    with using(held):
        yield
    held.close()


@pytest.mark.long
def test_a_classifier_with_weights_and_early_stopping_leaves_all_in_mlflow(
    tumours: Dataset, leases: None, tmp_path: Path
) -> None:
    columns = _tumour_columns(tumours)
    trees = train_classifier.fn(tumours, columns, XGBoostSpec(**SMALL))
    assert (trees.train_rows, trees.validation_rows) == (455, 114)
    assert set(trees.metrics) == {"train-logloss", "validation-logloss"}
    assert trees.metrics["validation-logloss"] < 0.3
    booster = _opened(trees, tmp_path)
    assert booster.num_boosted_rounds() == trees.best_round + 1
    assert booster.num_features() == len(trees.features) == 30

    found = client().get_run(trees.run_id)
    rounds = client().get_metric_history(trees.run_id, "validation-logloss")
    assert [point.step for point in rounds] == list(range(len(rounds)))
    assert rounds[trees.best_round].value == pytest.approx(trees.metrics["validation-logloss"])
    files = {file.path for file in client().list_artifacts(trees.run_id)}
    assert files == {"booster.ubj", "importance.json", "importance.png", "learning_curves.png"}
    assert found.data.params["columns.validation"] == "held out"
    assert (found.data.metrics["rows.train"], found.data.metrics["rows.validation"]) == (455, 114)


def test_weights_count_and_rounds_reach_mlflow_while_trees_grow(
    spark: SparkSession, leases: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two contradicting rows the one that weighs nine times as much is believed. When XGBoost is done, and
    before the history that it returns is looked at, MLflow holds every round."""
    import xgboost

    held, fill = [], boosting.StepDelivery.fill

    def look(delivery: boosting.StepDelivery, history: dict[str, list[float]]) -> None:
        there = [experiment.experiment_id for experiment in client().search_experiments()]
        (newest,) = client().search_runs(there, order_by=["attributes.start_time DESC"], max_results=1)
        points = client().get_metric_history(newest.info.run_id, "train-logloss")
        held.append([point.step for point in points])
        fill(delivery, history)

    monkeypatch.setattr(boosting.StepDelivery, "fill", look)
    monkeypatch.setattr(metrics, "SEND_EVERY_S", 0.0)
    ill = np.arange(200) // 2 % 2
    table = _dataset(spark, {"x": np.arange(200) % 2 * 1.0, "ill": ill, "w": 1.0 + 8 * ill})
    chances = []
    for weight in (None, "w"):
        columns = TreeColumns(features=("x",), label="ill", weight=weight)
        trees = train_classifier.fn(table, columns, XGBoostSpec(**SMALL))
        chances.append(float(_opened(trees, tmp_path).predict(xgboost.DMatrix(np.ones((1, 1))))[0]))
    assert held == [list(range(15))] * 2
    assert chances == pytest.approx([0.5, 0.9], abs=0.03)


def test_a_regressor_starts_from_the_base_margin(spark: SparkSession, leases: None, tmp_path: Path) -> None:
    """What the trees learn is the rest: the label less the margin. No validation: all rounds are kept."""
    import xgboost

    x = np.linspace(-1, 1, 200)
    table = _dataset(spark, {"x": x, "y": 3 * x + 100, "known": np.full(200, 100.0)})
    columns = TreeColumns(features=("x",), label="y", base_margin="known")
    trees = train_regressor.fn(table, columns, RegressionSpec(**SMALL))
    booster = _opened(trees, tmp_path)
    learned = booster.predict(xgboost.DMatrix(x[:, None], base_margin=np.zeros(200)))
    assert np.abs(learned - 3 * x).max() < 0.6
    assert (trees.best_round, trees.validation_rows, list(trees.metrics)) == (14, 0, ["train-rmse"])


@pytest.mark.long
def test_a_ranker_keeps_queries_whole_and_stops_at_the_best_order(
    spark: SparkSession, searches: Dataset, leases: None, tmp_path: Path
) -> None:
    columns = TreeColumns(features=("features",), label="relevance", query="search", validation="held_out")
    rows = deal_rows(spark, searches, columns, "ranker", 2)
    workers = rows.frame.groupBy("query", "is_validation").agg({"worker": "max", "partition": "count"})
    assert {row["count(partition)"] for row in workers.collect()} == {8}
    trees = train_ranker.fn(searches, columns, RankingSpec(**SMALL))
    assert (trees.train_rows, trees.validation_rows) == (360, 120)
    assert trees.metrics["validation-ndcg@32"] > 0.95
    assert trees.features == ("features[0]", "features[1]", "features[2]")
    score = _opened(trees, tmp_path).get_score(importance_type="gain")
    assert max(score, key=score.__getitem__) == "f0"


def test_the_same_table_is_dealt_alike_and_evenly(spark: SparkSession, tumours: Dataset) -> None:
    columns = _tumour_columns(tumours)
    rows = deal_rows(spark, tumours, columns, "classifier", 2)
    assert rows.columns == {"validation_indicator_col": "is_validation", "weight_col": "weight"}
    first, second = rows.frame, deal_rows(spark, tumours, columns, "classifier", 2).frame
    assert str(first.collect()) == str(second.collect())  # as text: an empty value equals no other
    counts = {
        (row["worker"], row["is_validation"]): row["count"]
        for row in first.groupBy("worker", "is_validation").count().collect()
    }
    assert counts == {(0, False): 228, (1, False): 227, (0, True): 57, (1, True): 57}


def test_wrong_columns_are_refused_before_a_row_is_read(spark: SparkSession, searches: Dataset) -> None:
    def refused(kind: str, **columns: object) -> str:
        given = {"features": ("features",), "label": "relevance", "query": "search", **columns}
        with pytest.raises(SpecError) as caught:
            deal_rows(spark, searches, TreeColumns(**given), kind, 2)  # type: ignore[arg-type]
        return str(caught.value)

    assert "no column 'relevence'" in refused("ranker", label="relevence")
    assert "must be the only feature" in refused("ranker", features=("features", "relevance"))
    assert "wanted: boolean" in refused("ranker", validation="relevance")
    assert "a ranker needs a query column" in refused("ranker", query=None)
    assert "a regressor takes no query column" in refused("regressor")
    assert "a ranker takes no weights" in refused("ranker", weight="relevance")
    assert "column 'search' has the wrong type" in refused("ranker", features=("search",))


def test_rows_that_cannot_be_trained_on_are_refused(spark: SparkSession) -> None:
    def refused(kind: str, workers: int = 2, **columns: object) -> str:
        names = TreeColumns(features=("x",), validation="held", query="q" if kind == "ranker" else None)
        with pytest.raises(DataError) as caught:
            deal_rows(spark, _dataset(spark, {**usual, **columns}), names, kind, workers)  # type: ignore[arg-type]
        return str(caught.value)

    usual = {
        "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "label": [0, 1, 0, 1, 0, 1],
        "held": [False, False, False, False, True, True],
        "q": [1, 1, 2, 2, 3, 4],
    }
    assert "1 of 3 workers would have no rows to validate on" in refused("classifier", workers=3)
    assert "5 of 9 workers would have no rows to train on" in refused("regressor", workers=9)
    assert "got: 0, 2 to train on" in refused("classifier", label=[0, 2, 0, 2, 0, 2])
    assert "only held out: 2" in refused("classifier", label=[0, 1, 0, 1, 2, 1])
    assert "1 rows have no label" in refused("regressor", label=[0, 1, None, 1, 0, 1])
    assert "query 2 has rows to train on and rows to validate on" in refused("ranker", q=[1, 1, 2, 2, 2, 4])
    assert "rows belong to no query" in refused("ranker", q=[1, 1, 2, None, 3, 4])


def test_a_gpu_that_is_not_there_is_refused_by_name(spark: SparkSession) -> None:
    """The pinned XGBoost has no CUDA; with one that has, the GPUs would be counted."""
    with pytest.raises(ResourceStartError, match="trees cannot be trained on a GPU here") as caught:
        check_device(XGBoostSpec(device="cuda"), spark)
    assert caught.value.wanted == "a build of XGBoost with CUDA"


def test_names_of_features(tumours: Dataset, searches: Dataset) -> None:
    assert feature_names(tumours, _tumour_columns(tumours))[0] == tumours.contract.names[0]
    assert feature_names(searches, TreeColumns(features=("features",))) == tuple(
        f"features[{number}]" for number in range(3)
    )


def _tumour_columns(tumours: Dataset) -> TreeColumns:
    features = tuple(name for name in tumours.contract.names if name.startswith("measure"))
    return TreeColumns(features=features, label="ill", validation="held out", weight="important")


def _dataset(spark: SparkSession, columns: dict[str, object], **options: object) -> Dataset:
    from ml_platform.store.datasets import write_dataset

    frame = spark.createDataFrame(pa.table(columns)).coalesce(2)
    return write_dataset(frame, name="table", **options)  # type: ignore[arg-type]


def _opened(trees: BoostedTrees, folder: Path) -> xgboost.Booster:
    import mlflow
    import xgboost

    from ml_platform.store.digests import file_digest
    from ml_platform.tracking import tracking_uri

    mlflow.set_tracking_uri(tracking_uri())
    path = Path(mlflow.artifacts.download_artifacts(trees.uri, dst_path=str(folder)))
    assert file_digest(path) == trees.digest
    return xgboost.Booster(model_file=path)
