"""What a model leans on and where it is most wrong, on Spark; and the card that says it to people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.evaluation.card import as_description, model_card
from ml_platform.evaluation.explain import permutation_importance, worst_rows
from ml_platform.evaluation.measure import measure
from ml_platform.evaluation.pictures import draw_importance, draw_ranking
from ml_platform.specs.problems import Problem
from ml_platform.specs.profiles import Finding
from ml_platform.specs.references import Calibration, Dataset, Evaluation, Parts, Slice, Table, Verdict
from ml_platform.specs.tables import SplitSpec
from tests.inference.builders import contract_of, raw_model, reference, state_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def _table(rows: int) -> pa.Table:
    """Column x tells the class, column noise tells nothing; every row is there twice."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, rows // 2)
    label = np.where(x + rng.normal(0, 0.3, rows // 2) > 0, "yes", "no")
    single = pa.table({"noise": rng.normal(0, 1, rows // 2), "x": x, "label": label.tolist()})
    return pa.concat_tables([single, single])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_model(tmp_path_factory.mktemp("told") / "model", _table(600))


@pytest.fixture(scope="module")
def part(spark: SparkSession) -> Dataset:
    from ml_platform.store.datasets import write_dataset

    return write_dataset(spark.createDataFrame(_table(600)).repartition(3), name="told", label="label")


@pytest.fixture(scope="module")
def evaluation(spark: SparkSession, folder: Path, part: Dataset) -> Evaluation:
    model = reference(folder, contract_of(_table(600)), state_of(_table(600)).classes)
    return measure(spark, folder, model, part, "holdout", ["noise"])


def test_the_column_that_tells_the_class_matters_most(
    spark: SparkSession, folder: Path, part: Dataset
) -> None:
    """The same on every run; a column without a say rises the loss by a small share of that."""
    found = permutation_importance(spark, folder, part)
    assert list(found) == ["x", "noise"]
    assert found["x"] > 0.3 > 10 * abs(found["noise"])
    assert found == permutation_importance(spark, folder, part)


def test_the_worst_rows_are_there_with_their_raw_values(
    spark: SparkSession, evaluation: Evaluation, part: Dataset
) -> None:
    """Equal rows come as often as they were measured; the greatest loss is at the top."""
    worst = worst_rows(spark, evaluation.model, evaluation, part)
    assert worst.column_names == ["loss", "predicted", "label", "noise", "x"]
    assert worst.num_rows == 50
    losses = worst.column("loss").to_pylist()
    assert losses == sorted(losses, reverse=True)
    first, second = worst.slice(0, 2).to_pylist()
    assert first == second
    assert first["predicted"] != first["label"]
    raw = {(row["noise"], row["x"]): row["label"] for row in _table(600).to_pylist()}
    assert all(raw[row["noise"], row["x"]] == row["label"] for row in worst.to_pylist())


def test_the_card_says_what_it_is_how_it_was_chosen_and_what_it_cannot(evaluation: Evaluation) -> None:
    challenger = evaluation.model_copy(
        update={
            "calibration": Calibration(error=0.2, limit=0.05, rows=600),
            "slices": (*evaluation.slices, Slice(column="a|b", value="Oslo", rows=12)),
        }
    )
    card = _card(SplitSpec(key_columns=("customer",)), challenger)
    for said in (
        "# churn: predicts `label` (binary, xgboost)",
        "**hold**: Not shown.",
        "(chosen)",
        "| roc_auc |",
        "Probabilities are not calibrated",
        "| a\\|b = Oslo | 12 | cannot tell |",
        "- churn.csv: 600 rows, 3 more set aside; fingerprint `abababababababab`",
        "- rows of each class to learn from: no ",
        "- split by customer: 600 to train",
        "'left on' (tells all)",
        "- churn.csv is not UTF-8",
        "- x: +0.5",
        "not frequencies",
        "Too few rows to tell: a|b = Oslo.",
    ):
        assert said in card
    assert as_description(card) == card
    long = as_description(card * 5)
    assert len(long) < 5_000
    assert long.endswith("the whole card: model_card.md of the run that trained this model")
    later = _card(SplitSpec(time="sold"), challenger)
    assert "- split by time, `sold`, the latest rows held out: 600 to train" in later
    grouped = _card(SplitSpec(group="owner"), challenger)
    assert "- 'owner' deals the rows, left out of the features" in grouped
    assert "later times" in card
    assert "later times" not in later
    assert "name `split.group`" not in later


def _card(split: SplitSpec, challenger: Evaluation) -> str:
    data = Dataset(
        uri="file:///t", contract=contract_of(_table(600)), rows=600, bytes=1, fingerprint="ab" * 16
    )
    return model_card(
        name="churn",
        table=Table(
            data=data,
            quarantined=3,
            source="churn.csv",
            findings=(Finding(column="left on", problem="leak", said="tells all"),),
            notes=("churn.csv is not UTF-8",),
        ),
        problem=Problem(kind="binary", reason="'label' has 2 different values."),
        parts=Parts(train=data, validation=data, holdout=data),
        split=split,
        state=state_of(_table(600)),
        candidates=[challenger.model_copy(update={"part": "validation"})],
        challenger=challenger,
        verdict=Verdict(decision="hold", reason="Not shown.", metric="log_loss", against="models:/churn/1"),
        importance={"x": 0.5, "noise": 0.01},
    )


def test_pictures_of_a_ranking_and_of_columns(evaluation: Evaluation) -> None:
    from ml_platform.evaluation.measure import read_rows

    rows = read_rows(evaluation)
    figure = draw_ranking(rows, "yes", "t")
    assert figure is not None
    assert figure.axes[0].get_title().startswith("ROC, area 0.9")
    assert figure.axes[1].get_title().startswith("average precision 0.9")
    one_class = rows.filter(pa.array(rows.column("label").to_numpy() == 1))
    assert draw_ranking(one_class, "yes", "t") is None
    bars = draw_importance({"x": 0.5, "noise": -0.1}, "t", measure="rise of log_loss", of="column").axes[0]
    assert bars.get_title() == "t\n2 columns"
