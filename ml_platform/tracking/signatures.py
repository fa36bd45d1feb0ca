"""A contract in MLflow's words: the signature of a model, the schema of a data set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ml_platform.errors import SpecError
from ml_platform.specs.contracts import RAW_TYPES, Column, Contract
from ml_platform.specs.problems import ProblemKind
from ml_platform.specs.references import Dataset

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, TensorSpec

MLFLOW_TYPES = {
    "integer": "long",
    "float": "double",
    "decimal": "double",
    "boolean": "boolean",
    "string": "string",
    "date": "datetime",
    "timestamp": "datetime",
    "binary": "binary",
    "packed": "binary",
}
EXAMPLE_ROWS = 5


def signature(contract: Contract, problem: ProblemKind = "multiclass") -> ModelSignature:
    """Signature of a model that takes the contract's raw columns and answers with classes or a number.

    Returns:
        Inputs: one column per column of `contract.inputs()`, optional where it may be null. Outputs:
        `prediction` (class name), `probability` (of that class), `probabilities` (class → probability); or
        `prediction` (a number) alone.
    Raises:
        SpecError: A column has a type that raw input may not have.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Map

    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "prediction"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Map(DataType.double), "probabilities"),
    ]
    if problem == "regression":
        outputs = [ColSpec(DataType.double, "prediction")]
    inputs: list[ColSpec | TensorSpec] = [_input(column) for column in contract.inputs().columns]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def example_frame(example: pa.Table, contract: Contract) -> pd.DataFrame:
    """The first rows of `example` as pandas holds them when they reach the model."""
    import pyarrow as pa

    rows = example.select(contract.inputs().names).slice(0, EXAMPLE_ROWS)
    for place, field in enumerate(rows.schema):
        kind = _plain_type(field.type)
        if kind is not None:
            rows = rows.set_column(place, pa.field(field.name, kind), rows.column(place).cast(kind))
    return rows.to_pandas()


def dataset_schema(dataset: Dataset) -> str:
    """Columns of a data set as MLflow's pages read them, in JSON."""
    columns = [_described(column) for column in dataset.contract.columns]
    return json.dumps({"mlflow_colspec": columns})


def _described(column: Column) -> dict[str, object]:
    kind = MLFLOW_TYPES.get(column.type, column.type)
    return {"name": column.name, "type": kind, "required": not column.nullable}


def _input(column: Column) -> ColSpec:
    from mlflow.types import ColSpec
    from mlflow.types.schema import AnyType

    allowed = RAW_TYPES | {"binary"}  # bytes: an encoded image
    if column.type not in allowed:
        raise SpecError(
            f"column {column.name!r} cannot be raw input of a model",
            wanted=f"one of {', '.join(sorted(allowed))}",
            got=column.type,
        )
    # pandas holds an integer column as int64 when it is full and as float64 when it is not. MLflow lets
    # neither long take the second nor double the first, so such a column is checked by the model itself.
    if column.type == "integer" and column.nullable:
        return ColSpec(AnyType(), column.name, required=False)  # type: ignore[no-untyped-call]
    return ColSpec(MLFLOW_TYPES[column.type], column.name, required=not column.nullable)


def _plain_type(kind: pa.DataType) -> pa.DataType | None:
    """The type to cast to before pandas: it holds dates, decimals and zones as objects, MLflow cannot."""
    import pyarrow as pa

    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return pa.timestamp("us")
    return pa.float64() if pa.types.is_decimal(kind) else None
