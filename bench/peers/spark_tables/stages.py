"""The tables that are loaded and fitted, and the Pipeline that a person writes for the second one."""

from __future__ import annotations

from pyspark.ml import Pipeline
from pyspark.ml.feature import Imputer, OneHotEncoder, StandardScaler, StringIndexer, VectorAssembler

NUMBERS = [f"x{at}" for at in range(20)]
TEXTS = [f"c{at}" for at in range(10)]
RAW = {
    "id": ("bigint", "id"),
    **{f"v{at}": ("double", f"round(randn({at}) * {10**at}, 3)") for at in range(4)},
    "age": ("bigint", "if(rand(4) < 0.03, null, int(18 + 60 * rand(5)))"),
    "day": ("date", "date_add(date'2020-01-01', int(2000 * rand(6)))"),
    "at": ("timestamp", "timestamp_seconds(1577836800 + int(1e8 * rand(7)))"),
    "is_new": ("boolean", "rand(8) < 0.2"),
    "city": ("string", "concat('city ', int(300 * pow(rand(9), 2)))"),
    "code": ("string", "concat('k-', int(1e5 * rand(10)))"),
    "label": ("string", "if(rand(11) < 0.3, 'yes', 'no')"),
}
"""Type and value of each column: what a table of customers has."""
TABLES = {
    "raw": [f"cast({value} as {kind}) as {name}" for name, (kind, value) in RAW.items()],
    # Numbers of several spreads, one in twenty of them missing; categories of 10 to 100 values.
    "plain": [
        "id % 2 as label",
        *(
            f"if(rand({at}) < 0.05, null, randn({50 + at}) * {at + 1} + {at}) as {x}"
            for at, x in enumerate(NUMBERS)
        ),
        *(
            f"concat('v', int(pow(rand({90 + at}), 2) * {10 * (at + 1)})) as {c}"
            for at, c in enumerate(TEXTS)
        ),
    ],
}
RAW_SCHEMA = ", ".join(f"{name} {kind}" for name, (kind, _) in RAW.items())


def pipeline() -> Pipeline:
    """Source: the guide of `pyspark.ml`, Extracting, transforming and selecting features."""
    filled, indexed, hot = [f"{x}_f" for x in NUMBERS], [f"{c}_i" for c in TEXTS], [f"{c}_h" for c in TEXTS]
    return Pipeline(
        stages=[
            Imputer(strategy="median", inputCols=NUMBERS, outputCols=filled),
            StringIndexer(inputCols=TEXTS, outputCols=indexed, handleInvalid="keep"),
            OneHotEncoder(inputCols=indexed, outputCols=hot),
            VectorAssembler(inputCols=filled, outputCol="numbers"),
            StandardScaler(inputCol="numbers", outputCol="scaled", withMean=True),
            VectorAssembler(inputCols=["scaled", *hot], outputCol="features"),
        ]
    )
