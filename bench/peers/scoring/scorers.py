"""Scores a table as others do: MLflow's UDF, Spark's `predict_batch_udf`, or one process without Spark.

mlflow.org/docs/latest/api_reference/python_api/mlflow.pyfunc.html#mlflow.pyfunc.spark_udf
spark.apache.org/docs/latest/api/python/reference/api/pyspark.ml.functions.predict_batch_udf.html
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from prepared import NAMES, WIDTH
from pyarrow import parquet

BATCH = 4096
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])


@lru_cache(maxsize=1)
def session() -> Any:
    from pyspark.sql import SparkSession

    # One partition per file, and batches of the size that the model is called with.
    conf = {
        "spark.sql.files.openCostInBytes": "128m",
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
    }
    conf |= {"spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH), "spark.driver.host": "127.0.0.1"}
    return SparkSession.builder.master("local[2]").config(map=conf).getOrCreate()


def traced(file: str) -> Any:
    """The network as a function of one array."""
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(file, compile=False)
    call = tf.function(lambda x: model(x, training=False), input_signature=[tf.TensorSpec([None, WIDTH])])
    return lambda values: call(tf.constant(values)).numpy()


def udf(model: str, columns: list[str]) -> Any:
    """A Keras model takes one column of vectors, trees take columns by name."""
    import mlflow.pyfunc
    from pyspark.sql.functions import array

    uri, trees = f"{model}/mlflow", _is_of_trees(model)
    kind = "float" if trees else "array<float>"
    function = mlflow.pyfunc.spark_udf(session(), uri, result_type=kind, env_manager="local")
    return function(*columns if trees or len(columns) == 1 else [array(*columns)])


def batch_udf(model: str, columns: list[str]) -> Any:
    """A model of one input takes one column: others are joined with `array`, as its error message says."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.functions import array
    from pyspark.sql.types import ArrayType, FloatType

    file = f"{model}/net.keras"
    function = predict_batch_udf(
        lambda: traced(file),
        return_type=ArrayType(FloatType()),
        batch_size=BATCH,
        input_tensor_shapes=[[WIDTH]],
    )
    return function(*columns if len(columns) == 1 else [array(*columns)])


def on_spark(side: str, source: str, kind: str, model: str, out: str) -> None:
    frame = session().read.parquet(source)
    columns = ["features"] if kind == "vectors" else NAMES
    scored = {"spark_udf": udf, "predict_batch_udf": batch_udf}[side](model, columns)
    frame.select("id", scored.alias("prediction")).write.parquet(out)


def alone(side: str, source: str, kind: str, model: str, out: str) -> None:
    """The limit: pyarrow, the model on all cores, pyarrow."""
    import numpy as np

    network, folder = (_trees if _is_of_trees(model) else _network)(model), Path(out)
    folder.mkdir()
    for path in sorted(Path(source).iterdir()):
        with parquet.ParquetFile(path) as file:
            tables = [_scored(network, batch, kind, np) for batch in file.iter_batches(BATCH)]
        parquet.write_table(pa.concat_tables(tables), folder / path.name, compression="zstd")


def _is_of_trees(model: str) -> bool:
    return Path(model, "trees.ubj").exists()


@lru_cache(maxsize=2)
def _network(model: str) -> Any:
    return traced(f"{model}/net.keras")


@lru_cache(maxsize=1)
def _trees(model: str) -> Any:
    """On all cores, without a copy of the rows."""
    import xgboost

    return xgboost.Booster(model_file=f"{model}/trees.ubj").inplace_predict


def _scored(network: Any, batch: pa.RecordBatch, kind: str, np: Any) -> pa.Table:
    columns = [batch.column("features").flatten()] if kind == "vectors" else [batch.column(n) for n in NAMES]
    values = np.stack([column.to_numpy() for column in columns], axis=1)
    out = network(values.reshape(-1, WIDTH))
    if out.ndim == 1:
        return pa.table({"id": batch.column("id"), "prediction": pa.array(out)})
    offsets = pa.array(np.arange(len(out) + 1, dtype=np.int32) * out.shape[1])
    return pa.table({"id": batch.column("id"), "prediction": pa.ListArray.from_arrays(offsets, out.ravel())})
