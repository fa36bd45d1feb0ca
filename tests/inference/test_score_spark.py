"""Scoring on Spark: the same predictions as anywhere, beside the keys, whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.data.sources import read_raw
from ml_platform.errors import DataError, SpecError, StoreError
from ml_platform.inference.destination import MARKER
from ml_platform.inference.parts import file_parts
from ml_platform.inference.raw_model import load_raw_model
from ml_platform.inference.score import SCORE_COLUMNS, score_frame, score_table
from ml_platform.inference.worker_models import ShippedModel
from ml_platform.specs.references import Version
from tests.inference.builders import (
    PEOPLE,
    PEOPLE_CONTRACT,
    PEOPLE_STATE,
    contract_of,
    digits,
    people_model,
    raw_model,
    reference,
)
from tests.inference.killed import score

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people_model(tmp_path_factory.mktemp("people") / "model")


@pytest.fixture(scope="module")
def version(people: Path) -> Version:
    return Version(name="people", version=3, model=reference(people, PEOPLE_CONTRACT, PEOPLE_STATE.classes))


@pytest.fixture
def frame(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(PEOPLE)


def test_keeps_every_column_and_adds_its_own(frame: DataFrame, people: Path, version: Version) -> None:
    scored = score_frame(frame, people, PEOPLE_CONTRACT.inputs().without(["id"]), version=version)
    assert scored.columns == [*PEOPLE.column_names, *SCORE_COLUMNS]
    rows = scored.orderBy("id").collect()
    expected = load_raw_model(people).predict(PEOPLE)
    assert [row["id"] for row in rows] == list("abcdef")
    assert [row["age"] for row in rows] == PEOPLE.column("age").to_pylist()
    assert [row["prediction"] for row in rows] == [PEOPLE_STATE.classes[i] for i in expected.argmax(axis=1)]
    np.testing.assert_allclose([row["probabilities"]["yes"] for row in rows], expected[:, 1], atol=1e-7)
    np.testing.assert_allclose([row["probability"] for row in rows], expected.max(axis=1), atol=1e-7)
    assert {(row["error"], row["model_name"], row["model_version"]) for row in rows} == {(None, "people", 3)}


def test_keeps_only_the_keys_that_are_named(frame: DataFrame, people: Path) -> None:
    scored = score_frame(frame, people, PEOPLE_CONTRACT.without(["id", "left"]), keys=["id"])
    assert scored.columns == ["id", *SCORE_COLUMNS]
    assert scored.first()["model_name"] is None


def test_a_bad_row_has_an_error_and_the_job_goes_on(spark: SparkSession, people: Path) -> None:
    table = pa.table({"age": [30.0, 30.5, None], "city": ["Bonn"] * 3, "id": list("abc")})
    scored = score_frame(spark.createDataFrame(table), people, PEOPLE_CONTRACT.without(["id", "left"]))
    rows = {row["id"]: row for row in scored.collect()}
    assert rows["a"]["error"] is None
    assert rows["c"]["prediction"] in PEOPLE_STATE.classes
    bad = rows["b"]
    assert (bad["prediction"], bad["probability"], bad["probabilities"]) == (None, None, None)
    assert bad["error"].startswith("column 'age' is not integer")


def test_strange_names_are_columns_like_others(spark: SparkSession, people: Path) -> None:
    table = PEOPLE.append_column("a.b `c` 😀", [[1, 2, 3, 4, 5, 6]])
    scored = score_frame(spark.createDataFrame(table), people, PEOPLE_CONTRACT.without(["id", "left"]))
    assert sorted(row["a.b `c` 😀"] for row in scored.collect()) == [1, 2, 3, 4, 5, 6]


def test_no_rows_are_scored_to_no_rows(frame: DataFrame, people: Path) -> None:
    assert score_frame(frame.limit(0), people, PEOPLE_CONTRACT.without(["id", "left"])).collect() == []


def test_a_clash_of_names_is_refused_before_anything_runs(frame: DataFrame, people: Path) -> None:
    clashing = frame.withColumnRenamed("id", "Prediction")
    contract = PEOPLE_CONTRACT.without(["id", "left"])
    with pytest.raises(SpecError, match="the table has a column 'Prediction'"):
        score_frame(clashing, people, contract)
    assert "Prediction" not in score_frame(clashing, people, contract, keys=["left"]).columns


def test_an_unknown_key_is_refused_with_the_nearest(frame: DataFrame, people: Path) -> None:
    with pytest.raises(SpecError, match="no key column 'idd'") as caught:
        score_frame(frame, people, PEOPLE_CONTRACT.without(["id", "left"]), keys=["idd"])
    assert "did you mean 'id'?" in str(caught.value)


def test_a_retyped_column_is_refused_before_anything_runs(frame: DataFrame, people: Path) -> None:
    contract = PEOPLE_CONTRACT.without(["id", "left"])
    with pytest.raises(DataError, match="does not fit the model") as caught:
        score_frame(frame.withColumn("age", frame["age"].cast("string")).drop("city"), people, contract)
    assert "age     integer          string\n" in str(caught.value)
    assert "city    string           nothing; no column of a similar name" in str(caught.value)


def test_a_model_is_loaded_once_per_worker_process(spark: SparkSession, people: Path) -> None:
    """Twelve tasks on two cores load it at most once per process, not once per task."""
    from ml_platform.inference.worker_models import ship

    shipped = ship(spark, people)
    frame = spark.range(12, numPartitions=12).mapInArrow(_Loads(shipped), "pid long, model long")
    rows = {(row["pid"], row["model"]) for row in frame.collect()}
    assert len(rows) == len({pid for pid, _ in rows}) <= 4


class _Loads:
    """Says in which process a task ran, and which object the model was there."""

    def __init__(self, shipped: ShippedModel) -> None:
        self.shipped = shipped

    def __call__(self, batches):
        import os

        model = self.shipped.open()
        for _ in batches:
            yield pa.RecordBatch.from_pydict({"pid": [os.getpid()], "model": [id(model)]})


def test_predictions_are_plain_parquet_that_anyone_can_read(
    spark: SparkSession, frame: DataFrame, people: Path, version: Version, tmp_path: Path
) -> None:
    got = score_table(
        spark, people, version, frame, keys=["id"], destination=str(tmp_path / "out" / "new scores #1")
    )
    folder = tmp_path / "out" / "new scores #1"
    assert got.model_dump() == {
        "uri": folder.as_uri(),
        "rows": 6,
        "failed_rows": 0,
        "reused_rows": 0,
        "model_uri": "models:/people/3",
        "model_version": 3,
    }
    table = pq.read_table(folder)
    assert sorted(table.column("id").to_pylist()) == list("abcdef")
    assert set(table.column("model_version").to_pylist()) == {3}
    assert json.loads((folder / MARKER).read_text())["model_digest"] == version.model.digest
    assert [path.name for path in folder.parent.iterdir()] == ["new scores #1"], "nothing else is left there"


def test_failed_rows_are_counted(spark: SparkSession, people: Path, version: Version, tmp_path: Path) -> None:
    table = pa.table({"age": [30.0, 30.5, 31.5], "city": ["Bonn"] * 3})
    got = score_table(
        spark,
        people,
        version,
        spark.createDataFrame(table).repartition(3),
        destination=str(tmp_path / "scores"),
    )
    assert (got.rows, got.failed_rows) == (3, 2)


def _written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def _tables(folder: Path, rows: list[tuple[str, str, str]], *broken: str) -> dict[str, str]:
    """The same rows as CSV and as JSON lines, and a record that is none of either."""
    csv = "\n".join(["age,city,id", *(",".join(row) for row in rows), *broken[:1]]) + "\n"
    objects = [f'{{"age": {age}, "city": "{city}", "id": "{name}"}}' for age, city, name in rows]
    return {
        "csv": _written(folder / "t.csv", csv),
        "json": _written(folder / "t.jsonl", "\n".join([*objects, *broken[1:]]) + "\n"),
    }


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_bad_cell_or_record_of_a_text_file_is_the_error_of_its_row(
    spark: SparkSession, people: Path, version: Version, tmp_path: Path, kind: str
) -> None:
    """The model says that the column is a number: a few rows that hold none are written without a
    prediction, and the others get theirs."""
    rows = [(str(at), "Bonn", f"r{at}") for at in range(100)]
    rows[7] = ("oops" if kind == "csv" else '"oops"', "Kiel", "bad")
    source = _tables(tmp_path, rows, "50,Bonn", '{"age": 50, "ci')[kind]
    frame, unread = read_raw(spark, source, version.model.contract)
    got = score_table(
        spark, people, version, frame, keys=["id"], destination=str(tmp_path / "scores"), unread=unread
    )
    assert (got.rows, got.failed_rows) == (101, 2)
    scored = {row["id"]: row for row in pq.read_table(tmp_path / "scores").to_pylist()}
    assert list(scored["bad"]) == ["id", *SCORE_COLUMNS]
    assert scored["bad"]["error"] == "column 'age' is no whole number: oops"
    assert scored["bad"]["prediction"] is None
    assert "of other than 3 fields" in scored[None]["error"] or "no JSON object" in scored[None]["error"]
    assert scored["r50"]["prediction"] in PEOPLE_STATE.classes
    every = score_table(spark, people, version, frame, destination=str(tmp_path / "all"), unread=unread)
    assert every.rows == 101
    assert pq.read_table(tmp_path / "all").column_names == ["age", "city", "id", *SCORE_COLUMNS]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_more_than_a_few_bad_rows_of_a_text_file_stop_the_scoring(
    spark: SparkSession, people: Path, version: Version, tmp_path: Path, kind: str
) -> None:
    """Then it is another table than the model's, and nothing is scored."""
    text = "oops" if kind == "csv" else '"oops"'
    rows = [(text if at < 6 else str(at), "Bonn", f"r{at}") for at in range(100)]
    frame, unread = read_raw(spark, _tables(tmp_path, rows)[kind], version.model.contract)
    with pytest.raises(DataError, match=r"(?s)1 of 2 columns.*age +integer +string"):
        score_table(
            spark, people, version, frame, keys=["id"], destination=str(tmp_path / "s"), unread=unread
        )
    good = [(str(at), "Bonn", f"r{at}") for at in range(10)]
    source = _tables(tmp_path, good, "50,Bonn", '{"age": 50, "ci')[kind]
    with pytest.raises(DataError, match=r"(?s)too many rows are bad.*at most 5% of 11.*1 .*50"):
        read_raw(spark, source, version.model.contract)


def test_a_good_text_file_has_no_column_of_reasons(
    spark: SparkSession, version: Version, tmp_path: Path
) -> None:
    """Fractions among whole numbers are numbers, and what the model does not read may be anything."""
    rows = [(str(at) if at % 25 else "1.5", "Bonn", str(at) if at else "x") for at in range(100)]
    for source in _tables(tmp_path, rows).values():
        frame, unread = read_raw(spark, source, version.model.contract)
        assert (unread, frame.columns) == (None, ["age", "city", "id"])
        assert dict(frame.dtypes) == {"age": "double", "city": "string", "id": "string"}


def test_new_predictions_replace_old_ones_only_when_they_are_complete(
    spark: SparkSession, frame: DataFrame, people: Path, version: Version, tmp_path: Path
) -> None:
    """A failing second scoring leaves the first result as it was; a good one leaves nothing of it."""
    from pyspark.sql import functions as F  # noqa: N812

    destination = str(tmp_path / "scores")
    score_table(spark, people, version, frame, destination=destination)
    before = {path.name: path.read_bytes() for path in (tmp_path / "scores").iterdir()}
    failing = frame.withColumn(
        "age", F.when(frame["id"] == "f", F.raise_error(F.lit("disk on fire"))).otherwise(1)
    )
    failing = failing.withColumn("age", failing["age"].cast("bigint"))
    with pytest.raises(StoreError, match="were not written") as caught:
        score_table(spark, people, version, failing, destination=destination)
    assert "disk on fire" in str(caught.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / "scores").iterdir()} == before
    score_table(spark, people, version, frame.limit(2), destination=destination)
    assert pq.read_table(destination).num_rows == 2
    assert [path.name for path in tmp_path.iterdir()] == ["scores"]


def test_days_are_kept_apart_and_one_that_is_scored_again_is_replaced(
    spark: SparkSession, frame: DataFrame, people: Path, version: Version, tmp_path: Path
) -> None:
    for day, rows in (("2026-11-26", 6), ("2026-11-27", 6), ("2026-11-27", 2)):
        got = score_table(
            spark,
            people,
            version,
            frame.limit(rows),
            keys=["id"],
            destination=str(tmp_path / "scores"),
            day=date.fromisoformat(day),
        )
    assert (got.rows, got.uri) == (2, (tmp_path / "scores" / "scored_on=2026-11-27").as_uri())
    days = pq.read_table(tmp_path / "scores").column("scored_on").to_pylist()
    assert {day: days.count(day) for day in set(days)} == {"2026-11-26": 6, "2026-11-27": 2}
    assert spark.read.parquet(str(tmp_path / "scores")).count() == 8


def test_files_are_read_without_spark_and_only_new_ones_are_scored(
    spark: SparkSession, people: Path, version: Version, tmp_path: Path
) -> None:
    """The same table as a frame and as files gives the same rows; what was scored stays as it lies there."""
    from ml_platform.data.sources import open_source, plain_files

    source = tmp_path / "rows #1 é"
    source.mkdir()
    for number in range(3):
        pq.write_table(PEOPLE.slice(2 * number, 2), source / f"{number}.parquet")

    def scored(name: str, *, files: bool = True, number: int = 3) -> tuple[pa.Table, int, dict[str, int]]:
        frame = open_source(str(source)).frame(spark)
        got = score_table(
            spark,
            people,
            version.model_copy(update={"version": number}),
            frame,
            destination=str(tmp_path / name),
            parts=file_parts(plain_files(str(source), PEOPLE_CONTRACT)) if files else (),
        )
        inodes = {path.name: path.stat().st_ino for path in (tmp_path / name).glob("part-*")}
        return pq.read_table(tmp_path / name).sort_by("id"), got.reused_rows, inodes

    by_frame, none, _ = scored("by frame", files=False)
    assert scored("by frame", files=False)[1:2] == (6,), "a frame is known by its rows"
    rows, reused, first = scored("scores")
    assert (none, reused) == (0, 0)
    assert rows.equals(by_frame)

    pq.write_table(PEOPLE.slice(2, 2).set_column(0, "age", pa.array([1, 2])), source / "1.parquet")
    changed, reused, second = scored("scores")
    assert (reused, len(set(first.values()) & set(second.values()))) == (4, 2)
    assert changed.column("age").to_pylist()[2:4] == [1, 2]
    assert scored("scores", number=4)[1] == 0, "each row says which version scored it"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_files_that_spark_reads_in_its_own_way_are_left_to_it(tmp_path: Path) -> None:
    """A number that is text to the model, a timestamp, a column in a folder's name, files that differ."""
    from ml_platform.data.sources import plain_files

    moments = pa.table({"age": pa.array([1], pa.timestamp("ns"))})
    tables = {"numbers": pa.table({"city": [1.0]}), "moments": moments, "x=1": PEOPLE, "plain": PEOPLE}
    for name, table in tables.items():
        (tmp_path / "all" / name).mkdir(parents=True)
        pq.write_table(table, tmp_path / "all" / name / "0.parquet")
    found = {name: len(plain_files(str(tmp_path / "all" / name), PEOPLE_CONTRACT)) for name in tables}
    assert found == {"numbers": 0, "moments": 0, "x=1": 1, "plain": 1}
    assert plain_files(str(tmp_path / "all"), PEOPLE_CONTRACT) == ()
    assert plain_files("sklearn:digits", PEOPLE_CONTRACT) == ()


def test_a_changed_model_stops_the_job_and_writes_nothing(
    spark: SparkSession, frame: DataFrame, version: Version, tmp_path: Path
) -> None:
    """What is wrong with the model is no row's error."""
    folder = people_model(tmp_path / "model")
    (folder / "features.json").write_bytes((folder / "features.json").read_bytes().replace(b"Bonn", b"Bern"))
    with pytest.raises(DataError, match="is not the file that the model was written with"):
        score_table(spark, folder, version, frame, destination=str(tmp_path / "scores"))
    assert not (tmp_path / "scores").exists()


@pytest.mark.long
@pytest.mark.horovod
@pytest.mark.parametrize("family", ["keras", "xgboost"])
def test_spark_this_process_and_a_bare_process_agree(
    spark: SparkSession, family: str, tmp_path: Path
) -> None:
    """One model, three ways, the same probabilities to 1e-5: what is evaluated is what is served."""
    table = digits().append_column("row", pa.array(range(1797)))
    folder = raw_model(tmp_path / "model", table.drop_columns("row"), family=family)
    here = load_raw_model(folder).predict(table)
    scored = score_frame(
        spark.createDataFrame(table).repartition(3),
        folder,
        contract_of(table.drop_columns("row")).inputs(),
        keys=["row"],
    ).toArrow()
    scored = scored.sort_by("row")
    assert scored.column("error").null_count == 1797
    on_spark = [[value for _, value in row] for row in scored.column("probabilities").to_pylist()]
    np.testing.assert_allclose(on_spark, here, atol=1e-5)
    np.testing.assert_allclose(_in_a_bare_process(folder, table, tmp_path), here, atol=1e-5)


def _in_a_bare_process(folder: Path, table: pa.Table, scratch: Path) -> np.ndarray:
    """Saved as MLflow saves it, loaded by `mlflow.pyfunc.load_model` in a process that knows nothing else."""
    pq.write_table(table, scratch / "rows.parquet")
    code = f"""
import mlflow, numpy, pandas
mlflow.pyfunc.save_model({str(scratch / "saved")!r}, loader_module="ml_platform.inference.raw_model",
                         data_path={str(folder)!r}, pip_requirements=[])
model = mlflow.pyfunc.load_model({str(scratch / "saved")!r})
out = model.predict(pandas.read_parquet({str(scratch / "rows.parquet")!r}))
numpy.save({str(scratch / "out.npy")!r}, [list(row.values()) for row in out["probabilities"]])
from pyspark import SparkContext  # MLflow imports pyspark where it is installed: no JVM may have started
assert SparkContext._gateway is None
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return np.load(scratch / "out.npy")


@pytest.mark.long
def test_a_scoring_on_spark_that_was_killed_goes_on_where_it_was(spark: SparkSession, tmp_path: Path) -> None:
    """A driver that is killed by −9 takes its JVM and workers along; the next scoring does the rest."""
    table = digits().append_column("row", pa.array(range(1797)))
    model = raw_model(tmp_path / "model", table.drop_columns("row"))
    source, destination, pipe = tmp_path / "rows", tmp_path / "out" / "scores", tmp_path / "pipe"
    source.mkdir()
    for number in range(12):
        pq.write_table(table.slice(150 * number, 150), source / f"{number:02}.parquet")
    os.mkfifo(pipe)
    arguments = [str(model), str(source), str(destination)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.inference.killed", *arguments, str(pipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as driver:
        with pipe.open("rb") as worker:
            assert worker.read(1) == b"x"
            driver.kill()
            assert worker.read() == b"", "the worker has ended, too"
        said, _ = driver.communicate()  # until nobody holds its output any more
    assert driver.returncode == -signal.SIGKILL, said.decode()
    (left,) = destination.parent.iterdir()
    finished = {path.stat().st_ino for path in left.glob("[0-9a-f]*.parquet")}
    assert 5 < len(finished) < 12

    got = score(spark, model, str(source), str(destination))
    assert (got.rows, got.failed_rows, got.reused_rows) == (1797, 0, 150 * len(finished))
    assert finished < {path.stat().st_ino for path in destination.glob("part-*")}
    assert len(list(destination.glob("part-*"))) == 12
    assert list(destination.parent.iterdir()) == [destination]
    scored = pq.read_table(destination).sort_by("row").column("probabilities").to_pylist()
    here = load_raw_model(model).predict(table)
    np.testing.assert_allclose([[value for _, value in row] for row in scored], here, atol=1e-5)
