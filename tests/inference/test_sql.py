"""Models of tables as functions of SQL: pinned to a version, asked in two ways, an error per row."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from pyspark.errors import PythonException

from ml_platform.errors import SpecError
from ml_platform.inference.raw_model import load_raw_model, read_manifest, read_state
from ml_platform.inference.sql import register_model_udf
from ml_platform.specs.references import Dataset, Version
from ml_platform.tracking import open_tracking, promote, register
from tests.inference.builders import PEOPLE, cancer, diabetes, number_model, people_model, raw_model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Raw models of tumours (two, of which the second learnt longer), of patients and of people."""
    root = tmp_path_factory.mktemp("models")
    return {
        "brief": raw_model(root / "brief", cancer(), rounds=1),
        "longer": raw_model(root / "longer", cancer(), rounds=8),
        "patients": number_model(root / "patients", diabetes(), rounds=3),
        "people": people_model(root / "people"),
    }


@pytest.fixture(scope="module")
def versions(
    folders: dict[str, Path], migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Version]]:
    """The same in MLflow: the tumours' are versions 1 and 2 of one model, the first is its champion."""
    home = tmp_path_factory.mktemp("registry")
    shutil.copyfile(migrated, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        patch.setenv("ML_PLATFORM_HOME", str(home))
        with open_tracking(experiment="sql", run_name="sql", tags={}) as run:
            found = {}
            for key, folder in folders.items():
                table = {"patients": diabetes, "people": lambda: PEOPLE}.get(key, cancer)()
                manifest = read_manifest(folder)
                train = Dataset(
                    uri=f"file:///{key}", contract=manifest.contract, rows=9, bytes=9, fingerprint="ab" * 32
                )
                model = run.log_model(
                    folder=folder,
                    family="xgboost",
                    contract=manifest.contract,
                    classes=read_state(folder).classes,
                    train=train,
                    example=table.slice(0, 3),
                )
                found[key] = register(model, "tumours" if key in ("brief", "longer") else key, tags={})
        promote(found["brief"], None)
        yield found


def probabilities(spark: SparkSession, query: str) -> tuple[np.ndarray, set[tuple[str | None, str, int]]]:
    """Of class 1, in the order of `id`; and what the rows say of errors and of their model."""
    rows = spark.sql(f"SELECT id, answer.* FROM ({query}) ORDER BY id").collect()
    said = {(row.error, row.model_name, row.model_version) for row in rows}
    return np.array([row.probabilities["1"] for row in rows]), said


def test_a_function_stays_the_version_that_its_alias_named(
    spark: SparkSession, folders: dict[str, Path], versions: dict[str, Version]
) -> None:
    """Asked by name, in any order and beside other columns, or by the columns of the contract."""
    table = cancer().slice(0, 40)
    names = [name for name in table.column_names if name != "label"]
    shown = table.append_column("id", [range(40)]).select(["label", *reversed(names), "id"])
    spark.createDataFrame(shown).repartition(2).createOrReplaceTempView("tumours")
    by_struct = "SELECT id, tumour(struct(*)) AS answer FROM tumours"
    by_column = f"SELECT id, tumour({', '.join(names)}) AS answer FROM tumours"
    assert register_model_udf(spark, "tumour", "models:/tumours@champion") == versions["brief"]
    expected = load_raw_model(folders["brief"]).predict(table)[:, 1]
    for query in (by_struct, by_column):
        found, said = probabilities(spark, query)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert said == {(None, "tumours", 1)}

    promote(versions["longer"], versions["brief"])
    again, said = probabilities(spark, by_struct)
    np.testing.assert_array_equal(again, found)
    assert said == {(None, "tumours", 1)}
    assert register_model_udf(spark, "tumour", "models:/tumours@champion") == versions["longer"]
    moved, said = probabilities(spark, by_struct)
    np.testing.assert_allclose(moved, load_raw_model(folders["longer"]).predict(table)[:, 1], atol=1e-6)
    assert said == {(None, "tumours", 2)}
    assert np.abs(moved - found).max() > 0.1


def test_a_model_of_numbers_gives_numbers(
    spark: SparkSession, folders: dict[str, Path], versions: dict[str, Version]
) -> None:
    table = diabetes().slice(0, 30)
    spark.createDataFrame(table.append_column("id", [range(30)])).createOrReplaceTempView("patients")
    register_model_udf(spark, "progress", versions["patients"].uri)
    query = "SELECT id, progress(struct(*)) AS answer FROM patients"
    rows = spark.sql(f"SELECT id, answer.* FROM ({query}) ORDER BY id").collect()
    assert rows[0].__fields__ == ["id", "prediction", "error", "model_name", "model_version"]
    model = load_raw_model(folders["patients"])
    expected = model.columns(model.predict(table)).column("prediction").to_numpy()
    np.testing.assert_allclose([row.prediction for row in rows], expected, rtol=1e-6)
    assert {(row.error, row.model_name, row.model_version) for row in rows} == {(None, "patients", 1)}


def test_a_row_that_cannot_be_scored_has_nulls_and_says_why(
    spark: SparkSession, versions: dict[str, Version]
) -> None:
    names = versions["people"].model.contract.names
    ages = pa.table({"age": [30.0, 30.5, 31.0], "city": ["Bonn"] * 3, "id": ["a", "b", "c"]})
    spark.createDataFrame(ages).createOrReplaceTempView("people")
    register_model_udf(spark, "leaves", versions["people"].uri)
    query = f"SELECT id, leaves({', '.join(names)}) AS answer FROM people"
    rows = {row.id: row for row in spark.sql(f"SELECT id, answer.* FROM ({query})").collect()}
    bad = rows.pop("b")
    assert (bad.prediction, bad.probability, bad.probabilities) == (None, None, None)
    assert bad.error.startswith("column 'age' is not integer")
    assert (bad.model_name, bad.model_version) == ("people", 1)
    assert all(row.error is None and row.prediction in ("no", "yes") for row in rows.values())


def test_another_number_of_arguments_says_which_are_wanted(
    spark: SparkSession, versions: dict[str, Version]
) -> None:
    """In the last line of what Spark says, whatever stands before it."""
    register_model_udf(spark, "leaves", versions["people"].uri)
    takes = "leaves (models:/people/1) takes 2 arguments, age integer, city string, or one struct with these"
    for arguments, given in {"1": "1, int32", "1, 'Bonn', 2.5D": "3, int32, string, double"}.items():
        with pytest.raises(PythonException) as caught:
            spark.sql(f"SELECT leaves({arguments})").collect()
        last = str(caught.value).strip().splitlines()[-1]
        assert (
            last
            == f"ml_platform.errors.SpecError: {takes} fields, as in leaves(struct(*)); it was given {given}"
        )
    with pytest.raises(SpecError, match="no name of a function"):
        register_model_udf(spark, "leaves today", versions["people"].uri)
    with pytest.raises(SpecError, match="people@nobody"):
        register_model_udf(spark, "leaves", "models:/people@nobody")
