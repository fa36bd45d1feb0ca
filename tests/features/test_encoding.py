"""Target encoding: it says what labels are like, and tells no training row its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.features.apply import transform
from ml_platform.features.encoding import encodings
from ml_platform.features.fit import fit_features
from ml_platform.features.write import apply_features
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import ColumnFeatures, FeatureSpec, FeatureState, TargetFeature
from ml_platform.store.datasets import read_table, write_dataset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = 4000
SPEC = FeatureSpec(
    target_smoothing=1.0,
    columns={name: ColumnFeatures(treat="target", vocabulary=2000) for name in ("noise", "told")},
)


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    """`noise` has 1,000 values and knows nothing; `told` is the label, nine times of ten."""
    return spark.range(0, ROWS, 1, 3).selectExpr(
        "if(xxhash64(id, 1) % 2 = 0, 'no', 'yes') as label",
        "concat('v', pmod(xxhash64(id, 2), 1000)) as noise",
        "if(pmod(xxhash64(id, 3), 10) = 0, 'either', if(xxhash64(id, 1) % 2 = 0, 'low', 'high')) as told",
        "id",
    )


@pytest.fixture(scope="module")
def train(frame: DataFrame) -> Dataset:
    return write_dataset(frame, name="train", label="label")


@pytest.fixture(scope="module")
def state(spark: SparkSession, train: Dataset) -> FeatureState:
    return fit_features(spark, train, SPEC, "binary")


def _features(part: Dataset) -> np.ndarray:
    column = read_table(part)["features"].combine_chunks()
    return np.frombuffer(b"".join(column.to_pylist()), np.float32).reshape(part.rows, -1)


@pytest.mark.spark
def test_a_random_category_does_not_make_training_rows_look_predictable(
    spark: SparkSession, train: Dataset, state: FeatureState
) -> None:
    """With its own label in it, a value of four rows knows each of them."""
    assert state.feature_names[-2:] == ("noise→yes", "told→yes")
    rows = read_table(train)
    leaking = transform(rows, state)
    own = apply_features(spark, train, state)
    out_of_fold, labels = _features(own), read_table(own)["label"].to_numpy()
    noise, told = len(state.feature_names) - 2, len(state.feature_names) - 1
    assert np.corrcoef(leaking[:, noise], rows["label"].to_pandas() == "yes")[0, 1] > 0.3
    assert abs(np.corrcoef(out_of_fold[:, noise], labels)[0, 1]) < 0.1
    assert np.corrcoef(out_of_fold[:, told], labels)[0, 1] > 0.8


@pytest.mark.spark
def test_folds_and_means_do_not_depend_on_layout(
    spark: SparkSession, frame: DataFrame, train: Dataset, state: FeatureState
) -> None:
    again = write_dataset(frame.repartition(5), name="train", label="label")
    assert fit_features(spark, again, SPEC, "binary") == state
    one, other = (_features(apply_features(spark, part, state)) for part in (train, again))
    assert np.array_equal(np.sort(one, axis=0), np.sort(other, axis=0))


@pytest.mark.spark
def test_other_rows_get_the_mean_of_all_folds(
    spark: SparkSession, frame: DataFrame, state: FeatureState
) -> None:
    part = write_dataset(frame.where("id % 5 = 0"), name="validation", label="label")
    wanted = transform(read_table(part), state)
    assert np.array_equal(
        np.sort(_features(apply_features(spark, part, state)), axis=0), np.sort(wanted, axis=0)
    )


@pytest.mark.spark
def test_of_a_number_it_is_the_mean(spark: SparkSession) -> None:
    frame = spark.range(0, 300, 1, 2).selectExpr("id / 7 as label", "concat('v', id % 3) as kind")
    part = write_dataset(frame, name="train", label="label")
    spec = FeatureSpec(target_smoothing=1e-9, columns={"kind": ColumnFeatures(treat="target")})
    state = fit_features(spark, part, spec, "regression")
    assert state.target is not None
    found = transform(pa.table({"kind": ["v0", "v1", "v2", "new", None]}), state)[:, 0]
    means = [(np.arange(at, 300, 3) / 7).mean() for at in range(3)]
    assert found * state.target.scale + state.target.center == pytest.approx(
        [*means, state.target.center, state.target.center], rel=1e-4
    )


def test_means_are_drawn_to_the_whole_and_leave_a_fold_out() -> None:
    feature = TargetFeature(
        name="x",
        values=("a", "b"),
        outputs=("no", "maybe", "yes"),
        prior=(0.5, 0.25, 0.25),
        smoothing=2.0,
        rows=((2, 0), (4, 0)),
        sums=(((2, 0), (0, 0), (0, 0)), ((0, 0), (4, 0), (0, 0))),
    )
    found = encodings(feature)
    assert found.shape == (3, 3, 3)
    assert found[0, 0].tolist() == [1 / 6, 4.5 / 6, 0.5 / 6]
    assert found[2, 0].tolist() == [3 / 8, 4.5 / 8, 0.5 / 8]
    assert np.allclose(found.sum(axis=2), 1)
    assert found[:, 1:].reshape(-1, 3).tolist() == [[0.5, 0.25, 0.25]] * 6
