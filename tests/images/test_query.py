"""The query of `flows.image_classification` is understood before anything is trained, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ml_platform.errors import SpecError
from tasks.images import QUERY, check_query

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.mark.parametrize(
    "query", [QUERY, "SELECT path, classify(content).probabilities['7'] FROM images WHERE unread IS NULL"]
)
def test_a_query_that_spark_understands_is_handed_on(query: str, spark: SparkSession) -> None:
    assert check_query.function(query, spark) == query


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEKT 1", "SELEKT"),
        ("SELECT colour FROM images", "colour"),
        ("SELECT classify(content).sureness FROM images", "sureness"),
        ("SELECT classyfi(content) FROM images", "classyfi"),
        ("SELECT 1 FROM pictures", "pictures"),
    ],
)
def test_what_is_wrong_is_named(query: str, said: str, spark: SparkSession) -> None:
    with pytest.raises(SpecError, match=rf"the query cannot be asked(.|\n)*{said}(.|\n)*classify\(content\)"):
        check_query.function(query, spark)
