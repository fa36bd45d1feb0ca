"""One model, three ways to ask it: the rank that trained it, Spark, and MLflow's loader. The same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ml_platform import Dataset, FeatureSpec, Fitted, KerasSpec, Rank, SplitSpec
from ml_platform.data.load import load_table
from ml_platform.data.split import split_table
from ml_platform.features.apply import transform
from ml_platform.features.fit import fit_features
from ml_platform.features.write import apply_features
from ml_platform.inference.raw_model import _load_pyfunc, write_raw_model
from ml_platform.inference.score import score_frame
from ml_platform.store.datasets import read_table, spark_frame
from ml_platform.training.network import build_network
from tests.gangs import warm_pair

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.horovod, pytest.mark.slow]

SPEC = KerasSpec(hidden=(32,), epochs=4, dropout=0.0)


def train_and_predict(
    rank: Rank, train: Dataset, holdout: Dataset, classes: int
) -> tuple[Fitted, NDArray[np.float32]]:
    """Train, then predict with the very network in the ranks' memory."""
    model = build_network(train.contract["features"].width or 1, classes, SPEC)
    model.compile("adam", "sparse_categorical_crossentropy")
    history = rank.fit(model, train, batch_rows=64, epochs=SPEC.epochs, seed=SPEC.seed)
    return rank.fitted(model, history), rank.predict(model, holdout)


def test_rank_spark_and_mlflow_agree_on_the_holdout(spark: SparkSession, tmp_path: Path) -> None:
    """To 1e-5, row by row, on real digits; trained by two ranks whose bytes were proved equal."""
    parts = split_table(spark, load_table(spark, "sklearn:digits", "label").data, SplitSpec())
    state = fit_features(spark, parts.train, FeatureSpec())
    train, holdout = (apply_features(spark, part, state) for part in (parts.train, parts.holdout))
    fitted, by_rank = warm_pair().run(train_and_predict, train, holdout, len(state.classes)).rank0
    assert fitted.proof["ranks"] == 2
    (tmp_path / "model.keras").write_bytes(fitted.model)
    folder = write_raw_model(
        tmp_path / "raw",
        family="keras",
        model_file=tmp_path / "model.keras",
        state=state,
        split=SplitSpec(),
        contract=parts.train.contract,
        lineage={},
    )

    rows = read_table(parts.holdout)
    features = transform(rows, state)
    from_rank = _by_features(read_table(holdout).column("features").to_pylist(), by_rank)
    expected = np.stack([from_rank[row.tobytes()] for row in features])

    alone = _load_pyfunc(str(folder)).predict(rows.to_pandas())
    np.testing.assert_allclose(_matrix(alone["probabilities"], state.classes), expected, atol=1e-5)

    contract = parts.holdout.contract.inputs()
    scored = score_frame(spark_frame(spark, parts.holdout), folder, contract).toArrow()
    on_spark = _matrix([dict(pairs) for pairs in scored.column("probabilities").to_pylist()], state.classes)
    expected_there = np.stack([from_rank[row.tobytes()] for row in transform(scored, state)])
    np.testing.assert_allclose(on_spark, expected_there, atol=1e-5)


def _by_features(packed: list[bytes], predictions: NDArray[np.float32]) -> dict[bytes, NDArray[np.float32]]:
    """Predictions by the features they were made from: rows of two data sets stand in different orders."""
    assert len(packed) == len(predictions)
    return dict(zip(packed, predictions, strict=True))


def _matrix(rows: Any, classes: tuple[str, ...]) -> NDArray[np.float64]:
    return np.array([[row[name] for name in classes] for row in rows])
