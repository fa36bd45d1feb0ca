"""Features of images as others make them: a row UDF, Spark's `predict_batch_udf`, or one process alone.

spark.apache.org/docs/latest/api/python/reference/api/pyspark.ml.functions.predict_batch_udf.html
keras.io/guides/transfer_learning; pillow.readthedocs.io/en/stable/reference/Image.html#PIL.Image.Image.draft
"""

from __future__ import annotations

import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

BATCH = 32
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])


@lru_cache(maxsize=1)
def session() -> Any:
    from pyspark.sql import SparkSession

    # One partition per file, and batches that fit in memory as floats.
    conf = {"spark.sql.files.openCostInBytes": "128m", "spark.ui.enabled": "false"}
    conf |= {"spark.sql.execution.arrow.maxRecordsPerBatch": "256", "spark.driver.host": "127.0.0.1"}
    return (
        SparkSession.builder.master("local[2]")
        .config(map={**conf, "spark.driver.memory": "1g"})
        .getOrCreate()
    )


def pixels(content: bytes, side: int) -> np.ndarray:
    """Decoded at a reduced scale, as ours are."""
    image = Image.open(io.BytesIO(content))
    image.draft("RGB", (side, side))
    image = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)


@lru_cache(maxsize=1)
def model(file: str, threads: int) -> Any:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    import keras

    return keras.saving.load_model(file, compile=False)


@lru_cache(maxsize=1)
def traced(file: str, threads: int) -> Any:
    """The network as a function of an array."""
    import tensorflow as tf

    network = model(file, threads)
    call = tf.function(lambda given: network(given, training=False))
    return lambda values: call(tf.constant(values)).numpy()


def row_udf(network: str, side: int) -> Any:
    from pyspark.sql.functions import udf
    from pyspark.sql.types import ArrayType, FloatType

    @udf(ArrayType(FloatType()))
    def featurise(content: bytes) -> list[float]:
        return model(network, 1).predict(pixels(content, side)[None], verbose=0)[0].tolist()

    return featurise("content")


def batch_udf(network: str, side: int) -> Any:
    """`predict_batch_udf` takes tensors: images are decoded by a pandas UDF before."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.functions import pandas_udf
    from pyspark.sql.types import ArrayType, FloatType

    @pandas_udf(ArrayType(FloatType()))
    def decode(contents: pd.Series) -> pd.Series:
        return contents.map(lambda content: pixels(content, side).ravel())

    predict = predict_batch_udf(
        lambda: traced(network, 1),
        return_type=ArrayType(FloatType()),
        batch_size=BATCH,
        input_tensor_shapes=[[side, side, 3]],
    )
    return predict(decode("content"))


def on_spark(peer: str, source: str, network: str, size: int, out: str, only: int) -> int:
    """Returns how many images."""
    frame = session().read.parquet(source).where(f"label < '{only:06d}'")
    features = {"row_udf": row_udf, "predict_batch_udf": batch_udf}[peer](network, size)
    frame.select("label", features.alias("features")).write.parquet(out)
    return parquet.read_table(out, columns=["label"]).num_rows


def alone(source: str, network: str, size: int, out: str) -> int:
    """The limit: images are decoded on two threads, the model runs on all cores."""
    call, rows = traced(network, os.cpu_count() or 1), 0
    Path(out).mkdir()
    with ThreadPoolExecutor(2) as pool:
        for path in sorted(Path(source).iterdir()):
            table = parquet.read_table(path)
            found = []
            for batch in table.to_batches(BATCH):
                contents = batch.column("content").to_pylist()
                images = list(pool.map(lambda content: pixels(content, size), contents))
                found.append(call(np.stack(images)))
            features = pa.array([row.tolist() for row in np.concatenate(found)], pa.list_(pa.float32()))
            written = pa.table({"label": table.column("label"), "features": features})
            parquet.write_table(written, Path(out, path.name))
            rows += table.num_rows
    return rows
