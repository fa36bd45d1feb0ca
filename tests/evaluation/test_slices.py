"""Slices: cut as a reader expects, silent where rows are few; and a floor in one holds a model back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.errors import SpecError
from ml_platform.evaluation.gate import decide, paired_gain
from ml_platform.evaluation.measure import measured_rows
from ml_platform.evaluation.metrics import metrics_of, row_losses
from ml_platform.evaluation.slices import listed, slice_table, slices_of
from ml_platform.inference.raw_model import write_raw_model
from ml_platform.specs.references import Slice
from ml_platform.specs.tables import SplitSpec
from ml_platform.specs.training import GateSpec
from tests.evaluation.test_gate import STATE, Rows
from tests.inference.builders import PEOPLE, PEOPLE_CONTRACT, PEOPLE_STATE, train_booster

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def _lines(slices: dict[str, pa.Array], rows: int) -> pa.Table:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, rows).astype(np.int32)
    scores = rng.random(rows)
    probabilities = np.stack([1 - scores, scores], 1).astype(np.float32)
    losses = row_losses(probabilities, labels, np.zeros(rows, bool))
    named = {f"slice:{name}": values for name, values in slices.items()}
    return pa.table({"label": labels, "predicted": probabilities.argmax(1), **losses, **named})


def test_texts_have_a_slice_per_value_and_few_rows_cannot_tell() -> None:
    city = pa.array(["Bonn"] * 60 + ["Kiel"] * 40 + ["Oslo"] * 12 + [None] * 8)
    found = slices_of(_lines({"city": city}, 120), 2, ["city"])
    assert [(str(each), each.rows) for each in found] == [
        ("city = Bonn", 60),
        ("city = Kiel", 40),
        ("city = Oslo", 12),
        ("city = (missing)", 8),
    ]
    assert {"log_loss", "accuracy"} <= set(found[0].metrics)
    assert found[2].metrics == {}
    table = slice_table(found)
    assert table["accuracy"][2:] == ["cannot tell", "cannot tell"]


def test_columns_are_named_one_by_one_or_with_commas() -> None:
    assert listed(["city, age", "plan"]) == ("city", "age", "plan")
    assert listed([]) == ()


def test_rare_texts_share_one_slice() -> None:
    names = pa.array([f"v{at % 30:02}" for at in range(300)] + ["common"] * 40)
    found = slices_of(_lines({"x": names}, 340), 2, ["x"])
    assert len(found) == 21
    assert (found[-1].value, found[-1].rows) == ("(others)", 110)
    assert sum(each.rows for each in found) == 340


def test_numbers_are_cut_at_quartiles_and_few_of_them_are_not() -> None:
    age = pa.array([float(at) for at in range(1, 101)] + [None] * 4)
    found = slices_of(_lines({"age": age}, 104), 2, ["age"])
    assert [(each.value, each.rows) for each in found] == [
        ("≤ 25", 25),
        ("25 to 50", 25),
        ("50 to 75", 25),
        ("> 75", 25),
        ("(missing)", 4),
    ]
    assert [str(each) for each in found[1:]] == [
        "age 25 to 50",
        "age 50 to 75",
        "age > 75",
        "age = (missing)",
    ]
    few = slices_of(_lines({"n": pa.array([1.0, 2.0] * 40)}, 80), 2, ["n"])
    assert [(each.value, each.rows) for each in few] == [("1", 40), ("2", 40)]
    skewed = slices_of(_lines({"n": pa.array([0.0] * 90 + [float(at) for at in range(10)])}, 100), 2, ["n"])
    assert [(each.value, each.rows) for each in skewed] == [("≤ 0", 91), ("> 0", 9)]


def _sliced(rows: Rows, losses: np.ndarray, value: float, low: float, high: float, size: int = 100):
    metrics = {"accuracy": {"value": value, "low": low, "high": high}}
    slices = (
        Slice.model_validate({"column": "city", "value": "Bonn", "rows": size, "metrics": metrics}),
        Slice(column="city", value="Oslo", rows=12),
    )
    whole = {"accuracy": {"value": 0.95, "low": 0.9, "high": 0.99}, "log_loss": metrics["accuracy"]}
    return rows.evaluation(losses, "new", slices=slices, metrics=whole)


@pytest.mark.parametrize(
    ("value", "low", "high", "decision"),
    [(0.85, 0.75, 0.9, "promote"), (0.75, 0.65, 0.85, "hold"), (0.6, 0.5, 0.7, "reject")],
)
def test_a_floor_holds_a_model_that_is_bad_in_one_slice(
    tmp_path: Path, value: float, low: float, high: float, decision: str
) -> None:
    """Better on the whole; what is surely below the floor is rejected, what may be below is held."""
    challenger = _sliced(Rows(tmp_path), np.full(400, 0.1), value, low, high)
    verdict = decide(challenger, None, STATE, GateSpec(resamples=300, floors={"accuracy": 0.8}))
    assert verdict.decision == decision
    assert verdict.reason.endswith("Cannot tell in slices with fewer than 30 rows: city = Oslo (12).")
    if decision != "promote":
        assert verdict.reason.startswith(
            f"Beyond a floor: city = Bonn has accuracy {value:.4f} [{low:.4f}, {high:.4f}] in 100 rows, "
            "the floor is 0.8. Better than the trivial predictor:"
        )
    assert decide(challenger, None, STATE, GateSpec(resamples=300)).decision == "promote"


def test_a_floor_of_an_unknown_metric_is_refused(tmp_path: Path) -> None:
    challenger = _sliced(Rows(tmp_path), np.full(400, 0.1), 0.9, 0.8, 0.95)
    with pytest.raises(SpecError, match="no metric 'rmse'"):
        decide(challenger, None, STATE, GateSpec(floors={"rmse": 3.0}))


def test_an_equal_challenger_of_few_groups_is_not_promoted_by_its_many_rows() -> None:
    """Thirty groups of forty rows that share their luck: 2.5 % is stated; taken for rows, it is far more."""
    rng = np.random.default_rng(5)
    spec, groups = GateSpec(resamples=300), np.repeat(np.arange(30), 40)
    promoted = {"groups": 0, "rows": 0}
    for _ in range(200):
        gain = np.repeat(rng.normal(0, 1, 30), 40) + rng.normal(0, 0.5, 1200)
        promoted["groups"] += paired_gain(np.zeros(1200), gain, spec, groups).low > 0
        promoted["rows"] += paired_gain(np.zeros(1200), gain, spec).low > 0
    assert promoted["groups"] <= 12
    assert promoted["rows"] > 50


def test_too_few_groups_cannot_tell(tmp_path: Path) -> None:
    challenger = Rows(tmp_path).evaluation(np.full(400, 0.1), "new", groups=12)
    verdict = decide(challenger, None, STATE, GateSpec(resamples=300))
    assert verdict.decision == "cannot tell"
    assert verdict.reason == "The holdout has 12 groups; 30 are needed to tell (--gate.minimum-rows)."


def test_every_metric_stands_on_groups() -> None:
    """Rows doubled ten times say no more than once: intervals are those of the single rows."""
    lines = _lines({}, 60).append_column("score", [np.random.default_rng(1).random(60)])
    tenfold = pa.concat_tables([lines] * 10).append_column("group", [np.tile(np.arange(60), 10)])
    alone, grouped = metrics_of(lines, 2), metrics_of(tenfold, 2)
    assert set(alone) == set(grouped)
    for name, metric in grouped.items():
        assert metric.value == pytest.approx(alone[name].value)
        width = alone[name].high - alone[name].low
        assert metric.high - metric.low == pytest.approx(width, rel=0.2), name


@pytest.mark.spark
def test_lines_carry_the_group_and_raw_values(spark: SparkSession, tmp_path: Path) -> None:
    """Also of a table with columns called as ours, and of a column with strange characters."""
    table = PEOPLE.append_column("group", [list("xxyyzz")]).append_column("a.b`c", [[1, 2, 3, 4, 5, 6]])
    folder = write_raw_model(
        tmp_path / "model",
        family="xgboost",
        model_file=train_booster(PEOPLE, PEOPLE_STATE, tmp_path / "trees.ubj"),
        state=PEOPLE_STATE,
        split=SplitSpec(group="group"),
        contract=PEOPLE_CONTRACT,
        lineage={},
    )
    frame = spark.createDataFrame(table)
    rows = measured_rows(frame, folder, ["city", "a.b`c", "group"])
    assert rows.column_names[-4:] == ["group", "slice:city", "slice:a.b`c", "slice:group"]
    assert rows.schema.field("slice:a.b`c").type == pa.float64()
    assert len(set(rows.column("group").to_pylist())) == 3
    by_value = dict(
        zip(rows.column("slice:a.b`c").to_pylist(), rows.column("slice:city").to_pylist(), strict=True)
    )
    assert by_value == {1: "Bonn", 2: "Kiel", 3: None, 4: "Oslo", 5: "Bonn", 6: "Kiel"}
    with pytest.raises(SpecError, match=r"cannot slice by 'ctiy'(.|\n)*did you mean 'city'"):
        measured_rows(frame, folder, ["ctiy"])
