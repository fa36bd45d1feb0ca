"""Tables that scikit-learn bundles: real data that needs no download."""

from __future__ import annotations

import re
from collections.abc import Set
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING

from ml_platform.data.source import Source
from ml_platform.errors import SpecError, nearest
from ml_platform.specs.sources import ReadingSpec

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
LABEL = "label"


class SklearnSource(Source):
    """A bundled table: its features under simple names, and `label`, or `target` where that is a number."""

    def __init__(self, source: str, reading: ReadingSpec = ReadingSpec()) -> None:
        if source not in BUNDLED:
            raise SpecError(f"scikit-learn bundles no table {source!r}", hint=nearest(source, BUNDLED))
        self._name = source

    def columns(self) -> tuple[str, ...]:
        return tuple(self._table.column_names)

    def check(self) -> None:
        """Bundled tables are whole."""

    def identity(self) -> dict[str, str]:
        return {"scikit-learn": version("scikit-learn")}

    def frame(
        self, spark: SparkSession, reason: str | None = None, as_text: Set[str] = frozenset()
    ) -> DataFrame:
        return spark.createDataFrame(self._table)

    @cached_property
    def _table(self) -> pa.Table:
        import pyarrow as pa
        from sklearn import datasets

        bunch = getattr(datasets, f"load_{self._name}")()
        columns = {simple_name(name): bunch.data[:, at] for at, name in enumerate(bunch.feature_names)}
        names = getattr(bunch, "target_names", None)
        labels = bunch.target if names is None else [names[at] for at in bunch.target]
        return pa.table({**columns, "target" if names is None else LABEL: pa.array(labels)})


def simple_name(name: str) -> str:
    """Letters, digits and underscores.

    >>> simple_name("sepal length (cm)")
    'sepal_length_cm'
    """
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")
