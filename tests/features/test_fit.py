"""Fitted feature states: right, and the same for any layout; applied alike by Spark and here."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ml_platform.errors import DataError, SpecError
from ml_platform.features.apply import encode_labels, transform
from ml_platform.features.fit import fit_features
from ml_platform.features.write import apply_features
from ml_platform.resources.progress import Progress, listening
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import FeatureSpec, FeatureState
from ml_platform.store.datasets import read_table, write_dataset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

ROWS = 3000
COLUMNS = (
    "id % 4 as label",
    "case when id % 10 = 0 then null when id % 10 = 1 then double('NaN') else sqrt(id) end as `x.y`",
    "cast(1990 + id % 35 as int) as year",
    "id % 3 = 0 as flag",
    "cast(id % 100 / 4 as decimal(10,2)) as price",
    "date_add(date'2020-01-01', cast(id % 60 as int)) as day",
    "timestamp_seconds(1700000000 + id) as at",
    "timestamp_ntz'2020-01-01 00:00:00' + make_dt_interval(0, 0, 0, id) as wall",
    "if(id % 7 = 0, null, concat('v', least(id % 13, 5))) as kind",
    "cast(null as double) as nothing",
    "5 as constant",
    "cast(null as string) as no_text",
    "if(id % 2 = 0, 'only', null) as sometimes",
    "double('-Infinity') + if(id = 0, 0, double('NaN')) as infinite",
)


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    return spark.range(0, ROWS, 1, 3).selectExpr(*COLUMNS)


@pytest.fixture(scope="module")
def train(frame: DataFrame) -> Dataset:
    return write_dataset(frame, name="train", label="label")


@pytest.fixture(scope="module")
def state(spark: SparkSession, train: Dataset) -> FeatureState:
    return fit_features(spark, train, FeatureSpec())


def test_the_state_is_the_same_bit_for_bit_for_any_layout(
    spark: SparkSession, frame: DataFrame, state: FeatureState
) -> None:
    """Early cutoff rests on it."""
    for partitions in (1, 7):
        again = write_dataset(frame.repartition(partitions), name="train", label="label")
        assert fit_features(spark, again, FeatureSpec()).model_dump_json() == state.model_dump_json()


def test_statistics_are_those_of_numpy(train: Dataset, state: FeatureState) -> None:
    """Whole numbers exactly, others within the width of a bin."""
    table = read_table(train)
    fitted = {feature.name: feature for feature in state.numeric}
    year = table["year"].to_numpy().astype(float)
    assert (fitted["year"].fill, fitted["year"].center) == (
        np.sort(year)[(ROWS - 1) // 2],
        pytest.approx(year.mean()),
    )
    assert fitted["year"].scale == pytest.approx(year.std(), rel=1e-9)
    x = table["x.y"].to_numpy()
    x = x[np.isfinite(x)]
    assert fitted["x.y"].fill == pytest.approx(np.median(x), rel=1 / 256)
    assert fitted["x.y"].center == pytest.approx(x.mean(), rel=1 / 256)
    assert fitted["x.y"].scale == pytest.approx(x.std(), rel=1 / 256)
    assert fitted["flag"].center == pytest.approx(1 / 3)
    assert fitted["price"].center == pytest.approx(table["price"].cast("double").to_numpy().mean(), rel=1e-9)


def test_times_keep_their_differences(state: FeatureState) -> None:
    """In float32 bins from zero an hour in 2023 would be one bin of 24 days."""
    fitted = {feature.name: feature for feature in state.numeric}
    assert fitted["at"].fill == pytest.approx(1_700_000_000 + ROWS / 2, abs=5)
    assert fitted["at"].scale == pytest.approx(ROWS / 12**0.5, rel=1 / 256)
    assert fitted["wall"].scale == pytest.approx(ROWS / 12**0.5, rel=1 / 256)
    first = (dt.date(2020, 1, 1) - dt.date(1970, 1, 1)).days
    assert fitted["day"].center == pytest.approx(first + 29.5)


def test_categories_are_ordered_by_frequency_then_name(spark: SparkSession, train: Dataset) -> None:
    spec = FeatureSpec(vocabulary=3)
    kinds = fit_features(spark, train, spec).categories
    counts = {row["values"]: row["counts"] for row in read_table(train)["kind"].value_counts().to_pylist()}
    counts.pop(None)
    expected = sorted(counts, key=lambda name: (-counts[name], name))[:3]
    assert {feature.name: feature.values for feature in kinds}["kind"] == tuple(expected)


def test_classes_are_counted_in_their_natural_order(state: FeatureState) -> None:
    assert (state.classes, state.class_counts) == (("0", "1", "2", "3"), (750,) * 4)


def test_empty_and_constant_columns_are_left_out_and_said(spark: SparkSession, train: Dataset) -> None:
    """A category that is sometimes missing is not constant."""
    heard: list[Progress] = []
    with listening(heard.append):
        state = fit_features(spark, train, FeatureSpec(drop=("at", "wall")))
    assert not {"nothing", "constant", "no_text", "infinite", "at", "wall"} & set(state.columns)
    assert "sometimes" in state.columns
    assert "nothing" in heard[-1].message
    assert "constant" in heard[-1].message


def test_impute_and_scale_follow_the_spec(spark: SparkSession, train: Dataset) -> None:
    spec = FeatureSpec(impute="mean", scale="none")
    fitted = {feature.name: feature for feature in fit_features(spark, train, spec).numeric}
    assert (fitted["year"].center, fitted["year"].scale) == (0, 1)
    assert fitted["year"].fill == pytest.approx(1990 + 17, abs=0.5)
    zero = fit_features(spark, train, FeatureSpec(impute="zero"))
    assert {feature.fill for feature in zero.numeric} == {0.0}


def test_an_unknown_column_to_drop_is_named(spark: SparkSession, train: Dataset) -> None:
    with pytest.raises(SpecError, match=r"cannot drop column 'yaer'(.|\n)*did you mean 'year'"):
        fit_features(spark, train, FeatureSpec(drop=("yaer",)))


def test_nothing_left_to_learn_from_is_an_error(spark: SparkSession, frame: DataFrame) -> None:
    bare = write_dataset(frame.select("label", "constant", "nothing"), name="bare", label="label")
    with pytest.raises(DataError, match="no column is left"):
        fit_features(spark, bare, FeatureSpec())


def test_spark_and_this_process_compute_the_same_bits(
    spark: SparkSession, train: Dataset, state: FeatureState
) -> None:
    """No skew between what is trained on and what is served."""
    written = apply_features(spark, train, state)
    assert written.contract["features"].width == state.width
    assert written.uri.split("/")[-2] == "train-features"
    table, raw = read_table(written), read_table(train)
    ours = transform(raw, state)
    labels = encode_labels(raw["label"], state).tolist()
    # Spark may read files in another order than the manifest's.
    theirs = zip(table["label"].to_pylist(), table["features"].to_pylist(), strict=True)
    assert sorted(theirs) == sorted(zip(labels, [row.tobytes() for row in ours], strict=True))
    scaled = ours[:, : len(state.numeric)]
    assert np.abs(scaled.mean(axis=0)).max() < 0.25
    assert ours[:, len(state.numeric) :].sum() == ROWS * len(state.categories)
