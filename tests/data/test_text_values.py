"""A text becomes the value that Spark's casts give, or a doubt; never another value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from ml_platform.data.csv_types import typed
from ml_platform.data.text_types import KINDS, PATTERNS, kinds_of
from ml_platform.data.text_values import all_missing, trimmed, values_of
from ml_platform.store.pieces import DoubtError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NUMBERS = """
0 -0 +0 7 -7 +7 007 -007 00 0x1F 0X1f 0b1 9223372036854775807 9223372036854775808 -9223372036854775808 1_000
1,5 1.5 -1.5 +1.5 .5 -.5 5. 0.5 00.5 0e5 1e5 1E-5 1e400 -1e400 1e-400 1d 1.5f 0x1p3 inf -inf +inf Inf INF
Infinity -Infinity infinity NaN nan NAN -nan NA N/A null NULL None none ½ ١٢
"""
MOMENTS = [
    f"{day}{clock}"
    for day in ("2024-02-29", "0001-01-01", "9999-12-31", "1582-10-10", "2023-02-29", "2024-2-9")
    for clock in ("", "T00:00", " 23:59:59", "T10", " 10:61", "T10:00:00.5", " 10:00:00.123456789",
                  "T10:00:00Z", "T10:00Z", "Z", "T10:00:00+02:00", "T10:00:00-0130", "T24:00:00", " 10:00:60",
                  "T10:00:00+1900", " 10:00:00 ", "T10:00:00ZZ")
]  # fmt: skip
WORDS = ["true", "false", "True", "FALSE", "tRUE", "t", "yes", "1", "0", "x"]
TEXTS = [*NUMBERS.split(), *MOMENTS, *WORDS, "", " ", "a\n", "1\n", "12:30:00"]


@pytest.mark.spark
@pytest.mark.parametrize("kind", PATTERNS)
def test_a_value_is_the_one_that_spark_finds(kind: str, spark: SparkSession) -> None:
    """Also beside values of other forms: what one text is does not depend on the others."""
    frame = spark.createDataFrame([(text,) for text in TEXTS], "text string")
    rows = frame.selectExpr("text", typed("text", kind).replace("AS `text`", "AS value")).toArrow()
    theirs = dict(zip(rows["text"].to_pylist(), rows["value"].to_pylist(), strict=True))
    fits = dict(zip(TEXTS, kinds_of(pa.array(TEXTS)).tolist(), strict=True))
    known = []
    for text in TEXTS:
        try:
            value = values_of(pa.array([text, None]), kind)[0].as_py()
        except DoubtError:
            continue
        assert fits[text] == -1 or KINDS[fits[text]] == kind or (KINDS[fits[text]], kind) in MIXED, text
        assert (value, str(value)) == (theirs[text], str(theirs[text])), text
        known.append(text)
    assert len(known) > 8
    for text in known:
        try:
            found = values_of(pa.array([text, *known[:3]]), kind)[0].as_py()
        except DoubtError:
            continue
        assert str(found) == str(theirs[text])


MIXED = {("bigint", "double"), ("date", "timestamp")}


def test_blank_ends_are_those_of_spark() -> None:
    texts = pa.array(["a", "\x1fb ", "\u00a0c", None, " ", ""]).slice(1)
    assert trimmed(texts).to_pylist() == ["b", "\u00a0c", None, "", ""]


def test_words_for_no_value_are_none() -> None:
    assert all_missing(pa.array(["NA", None, ""]))
    assert all_missing(pa.array([], pa.string()))
    assert not all_missing(pa.array(["NA", "0"]))
