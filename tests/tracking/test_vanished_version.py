"""A version that is deleted while a job scores with it: the job goes on with what it took along."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.errors import SpecError
from ml_platform.inference.score import score_table
from ml_platform.specs.references import Model
from ml_platform.tracking import registry
from ml_platform.tracking.fetching import fetch
from ml_platform.tracking.server import client

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@dataclass(frozen=True)
class Waiting:
    """Rows as they are; those of a task without a city in the first row wait until the gate is opened."""

    gate: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows and not batch.column("city")[0].is_valid:
                Path(self.gate).read_text()
            yield batch


@pytest.mark.timeout(180)
def test_a_version_that_vanishes_in_mid_job_is_scored_with_to_the_end(
    spark: SparkSession, model: Model, home: Path, tmp_path: Path
) -> None:
    """All rows, by that version; whoever asks for it afterwards is told that it is gone."""
    version = registry.register(model, "leavers", tags={})
    folder, gate = fetch(version), tmp_path / "gate"
    os.mkfifo(gate)
    rows = pa.table({"age": [30, 40], "income": [900.0, 2000.0], "city": [None, "Bern"]})
    frame = spark.createDataFrame(rows).repartition(2, "age")
    waiting = frame.mapInArrow(Waiting(str(gate)), frame.schema)
    with ThreadPoolExecutor(1) as pool:
        scoring = pool.submit(
            score_table, spark, folder, version, waiting, destination=str(tmp_path / "scores")
        )
        with gate.open("w"):  # opens when the job is at the row that waits for it
            client().delete_model_version("leavers", "1")
            client().delete_logged_model(model.uri.removeprefix("models:/"))
            shutil.rmtree(folder)
        scored = scoring.result()
    assert (scored.rows, scored.failed_rows, scored.model_version) == (2, 0, 1)
    assert set(pq.read_table(tmp_path / "scores").column("model_version").to_pylist()) == {1}
    with pytest.raises(SpecError):
        registry.find("models:/leavers/1")
