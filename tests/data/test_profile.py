"""What is counted while a table is loaded, and what its columns are found to be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ml_platform.data.load import load_table
from ml_platform.data.sketch import TableSketch, merged
from ml_platform.data.split import split_table
from ml_platform.specs.tables import SplitSpec

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 600


def sketched(*batches: pa.RecordBatch) -> tuple[int, list[object], pa.Table | None]:
    states = []
    for batch in batches:
        sketch = TableSketch()
        sketch.add(batch)
        states.append(sketch.state())
    return merged(states)


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    """Distinct values are exact while few, and within some percent when many."""
    rows = 200_000
    values = np.arange(rows)
    whole = pa.record_batch(
        {
            "few": pa.array(values % 700),
            "many": pa.array([f"v{v}" for v in values % 50_000]),
            "floats": pa.array(np.where(values % 2, np.nan, values / 7)),
        }
    )
    parts = [whole.slice(at, 25_000) for at in range(0, rows, 25_000)]
    for count, columns, sample in (sketched(whole), sketched(*parts)):
        few, many, floats = columns
        assert (count, few.values, few.distinct, few.low, few.high) == (rows, rows, 700, 0, 699)
        assert (many.values, many.words, floats.values) == (rows, rows, rows // 2)
        assert many.distinct == pytest.approx(50_000, rel=0.1)
        assert floats.distinct == pytest.approx(100_000, rel=0.1)
        assert sample is not None
        assert sample.column(0).to_numpy().mean() == pytest.approx(349.5, rel=0.05)
    assert sketched(whole)[1][1].distinct == sketched(*parts)[1][1].distinct


@pytest.mark.spark
@pytest.mark.usefixtures("store")
def test_columns_are_found_to_be_what_they_are_and_stay_so_in_every_part(
    spark: SparkSession, tmp_path: Path
) -> None:
    words = ["the pump was loud", "no fault found today", "oil leaks from below", "belt worn and replaced"]
    table = pa.table(
        {
            "number": list(range(ROWS)),
            "code": [f"c{at:05}" for at in range(ROWS)],
            "plan": [["basic", "plus", "pro"][at % 3] for at in range(ROWS)],
            "note": [f"{words[at % 4]} at {at}" for at in range(ROWS)],
            "visits": [at * 37 % 101 for at in range(ROWS)],
            "spend": [None if at % 10 == 0 else at / 4 for at in range(ROWS)],
            "a.`b` 😀": [at % 2 == 0 for at in range(ROWS)],
            "label": [f"{at % 2}" for at in range(ROWS)],
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    loaded = load_table(spark, str(tmp_path / "t.parquet"), "label")
    kinds = {
        "number": "identifier", "code": "identifier", "plan": "category", "note": "text",
        "visits": "integer", "spend": "float", "a.`b` 😀": "boolean", "label": "category",
    }  # fmt: skip
    assert {column.name: column.kind for column in loaded.data.contract.columns} == kinds
    parts = split_table(spark, loaded.data, SplitSpec())
    assert {column.name: column.kind for column in parts.holdout.contract.columns} == kinds
    assert loaded.profile is not None
    columns = {column.name: column for column in loaded.profile.columns}
    assert (loaded.profile.rows, loaded.profile.sampled) == (ROWS, ROWS)
    assert (columns["spend"].nulls, columns["spend"].distinct) == (60, 540)
    assert (columns["visits"].low, columns["visits"].high) == ("0", "100")
    assert columns["visits"].quantiles[2] == pytest.approx(50, abs=1)
    assert [(f.value, round(f.share, 2)) for f in columns["plan"].frequent] == [
        ("basic", 0.33), ("plus", 0.33), ("pro", 0.33),
    ]  # fmt: skip
