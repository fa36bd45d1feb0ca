"""Models as functions of Spark SQL: pinned to one version when they are registered, which every row shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.errors import SpecError
from ml_platform.inference.raw_model import RawModel, read_manifest, read_state
from ml_platform.inference.score import scored_columns
from ml_platform.inference.worker_models import ShippedModel, ship
from ml_platform.resources.process_wide import heard
from ml_platform.resources.spark_daemon import forked_with
from ml_platform.specs.contracts import Contract
from ml_platform.specs.references import Version
from ml_platform.tracking import registry
from ml_platform.tracking.fetching import fetch

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession


CLASSES = "prediction: string, probability: double, probabilities: map<string, double>"
NUMBER = "prediction: double"
SHOWN = 20
"""Columns that an error names."""
STAMP = "error: string, model_name: string, model_version: int"


def register_model_udf(spark: SparkSession, name: str, uri: str) -> Version:
    """Make a registered model a function of this session's SQL.

        register_model_udf(spark, "digit", "models:/digits@champion")
        spark.sql("SELECT digit(struct(*)).prediction FROM pixels")

    The function takes one struct, whose fields are matched by name, or the model's raw columns in the order
    of its contract. It gives what batch scoring gives: `prediction`, of classes also `probability` and
    `probabilities`, then `error`, `model_name`, `model_version`. A row that cannot be scored has nulls and
    says why in `error`.

    Args:
        uri: models:/NAME@ALIAS or models:/NAME/VERSION. An alias is looked up now: the function stays the
            version that it names today.
    Returns:
        That version.
    Raises:
        SpecError: There is no such model, version or alias, or `name` is no name of a function.
    """
    from pyspark.sql.pandas.functions import ArrowUDFType, arrow_udf

    if not name.isidentifier():
        raise SpecError(f"{name!r} is no name of a function", wanted="letters, digits and underscores")
    version = registry.find(uri)
    folder = fetch(version)
    contract = read_manifest(folder).contract
    returns = answer_type(has_classes=bool(read_state(folder).classes))
    scorer = _Scorer(name, ship(spark, folder), contract, version)
    # It warns that there are no type hints: they would have to import Arrow at the top.
    with heard(), forked_with(scorer.model.imports):
        spark.udf.register(name, arrow_udf(scorer, returns, ArrowUDFType.SCALAR_ITER))
    return version


def answer_type(*, has_classes: bool) -> str:
    """What such a function gives for a row, as Spark writes types."""
    return f"struct<{CLASSES if has_classes else NUMBER}, {STAMP}>"


@dataclass(frozen=True)
class _Scorer:
    """What runs on executors: arguments in, a struct per row out."""

    function: str
    model: ShippedModel
    contract: Contract
    version: Version

    def __call__(self, batches: Iterator[pa.Array | tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        model = self.model.open()
        for batch in batches:
            arguments = batch if isinstance(batch, tuple) else (batch,)
            yield self._scored(model, self._rows(arguments))

    def _rows(self, arguments: tuple[pa.Array, ...]) -> pa.RecordBatch:
        import pyarrow as pa

        if len(arguments) == 1 and pa.types.is_struct(arguments[0].type):
            struct = arguments[0]
            return pa.RecordBatch.from_arrays(struct.flatten(), names=[field.name for field in struct.type])
        names = list(self.contract.names)
        if len(arguments) != len(names):
            raise SpecError(self._misused(arguments))
        return pa.RecordBatch.from_arrays(list(arguments), names=names)

    def _misused(self, arguments: tuple[pa.Array, ...]) -> str:
        """One line: it is the last one of what Spark says."""
        columns = [f"{column.name} {column.type}" for column in self.contract.columns]
        more = ", …" if len(columns) > SHOWN else ""
        given = [str(argument.type) for argument in arguments]
        return (
            f"{self.function} ({self.version.uri}) takes {len(columns)} arguments, "
            f"{', '.join(columns[:SHOWN])}{more}, or one struct with these fields, "
            f"as in {self.function}(struct(*)); it was given {len(given)}, {', '.join(given[:SHOWN])}"
        )

    def _scored(self, model: RawModel, rows: pa.RecordBatch) -> pa.Array:
        import pyarrow as pa

        columns = scored_columns(model, rows, self.version.name, self.version.version)
        return pa.StructArray.from_arrays([*columns.values()], names=[*columns])
