"""The split: disjoint, stable, by group; refused when a part cannot serve."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from ml_platform.data import csv_sample, load
from ml_platform.data.split import _proof, key_columns, split_table
from ml_platform.errors import DataError, SpecError, StoreError
from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.references import Dataset, Parts
from ml_platform.specs.tables import SplitSpec
from ml_platform.store.datasets import read_table, write_dataset
from ml_platform.store.folders import local_path
from ml_platform.store.location import data_uri

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 4000


def table(spark: SparkSession, rows: int = ROWS, *, id_type: str = "bigint") -> Dataset:
    frame = spark.range(0, rows, 1, 3).selectExpr(
        f"cast(id as {id_type}) as id", "id % 40 as `the group`", "concat('c', id % 3) as label"
    )
    return write_dataset(frame, name="table", label="label")


def ids(part: Dataset) -> set[float]:
    return set(read_table(part)["id"].to_pylist())


def parts_of(parts: Parts) -> list[Dataset]:
    return [parts.train, parts.validation, parts.holdout]


@pytest.mark.spark
def test_parts_are_disjoint_and_of_the_asked_shares(spark: SparkSession) -> None:
    parts = split_table(spark, table(spark), SplitSpec(validation=0.15, holdout=0.25))
    found = [ids(part) for part in parts_of(parts)]
    assert set.union(*found) == set(range(ROWS))
    assert sum(map(len, found)) == ROWS
    for members, share in zip(found, (0.6, 0.15, 0.25), strict=True):
        assert abs(len(members) / ROWS - share) < 4 * (share * (1 - share) / ROWS) ** 0.5
    assert all(part.contract.label == "label" for part in parts_of(parts))
    assert parts.proof is not None
    assert (parts.proof.distinct, parts.proof.shared) == (ROWS, 0)
    assert "4,000 keys by 2 columns, 0 of them in more than one part" in str(parts)


@pytest.mark.spark
def test_rows_keep_their_part_when_rows_are_added_and_types_widen(spark: SparkSession) -> None:
    """Appending a fraction makes a whole-number column a float column."""
    spec = SplitSpec(key_columns=("id",))
    before = [ids(part) for part in parts_of(split_table(spark, table(spark), spec))]
    grown = table(spark, 2 * ROWS, id_type="double")
    after = [ids(part) for part in parts_of(split_table(spark, grown, spec))]
    for old, new in zip(before, after, strict=True):
        assert {member for member in new if member < ROWS} == old


@pytest.mark.spark
def test_columns_added_and_cells_corrected_move_no_row_that_has_a_key(spark: SparkSession) -> None:
    """Without key columns the whole row is the key: then a correction is another row, and may move."""

    def grown(correction: str) -> Dataset:
        frame = spark.range(0, ROWS, 1, 2).selectExpr(
            "id", f"{correction} as `the group`", "id * 3 as further", "concat('c', id % 3) as label"
        )
        return write_dataset(frame, name="table", label="label")

    keyed = SplitSpec(key_columns=("id",))
    before = [ids(part) for part in parts_of(split_table(spark, table(spark), keyed))]
    assert [ids(part) for part in parts_of(split_table(spark, grown("id % 41"), keyed))] == before
    whole = [
        ids(split_table(spark, grown(f"if(id < 200, {changed}, id % 40)"), SplitSpec()).holdout)
        for changed in ("1", "2")
    ]
    moved = whole[0] ^ whole[1]
    assert moved
    assert max(moved) < 200


@pytest.mark.spark
@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("spec", "further"),
    [
        (SplitSpec(), ""),
        pytest.param(SplitSpec(key_columns=("id",)), ",new", marks=pytest.mark.long),
    ],
)
def test_rows_of_a_file_that_is_appended_to_keep_their_part(
    spec: SplitSpec, further: str, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has grown out of what Spark reads into what Arrow reads, and a column of whole numbers has a
    fraction now. A further column moves no row that has a key."""
    source, read = tmp_path / "t.csv", []
    lines = [
        f"{at},{at % 90},{at / 8},2024-01-{at % 28 + 1:02},c{at % 7},{'yn'[at % 2]}" for at in range(900)
    ]
    whole = load._loaded
    monkeypatch.setattr(load, "_loaded", lambda *given: read.append("Spark") or whole(*given))

    def dealt(lines: list[str], header: str) -> list[set[float]]:
        source.write_text("\n".join([header, *lines]))
        parts = split_table(spark, load.load_table(spark, str(source), "label").data, spec)
        return [ids(part) for part in parts_of(parts)]

    before = dealt(lines[:500], "id,whole,part,day,city,label")
    assert read == ["Spark"]
    monkeypatch.setattr(csv_sample, "WHOLE_BYTES", 0)
    grown = [line + further for line in (*lines, "900,0.5,1,2024-01-01,c8,y")]
    after = dealt(grown, "id,whole,part,day,city,label" + further)
    assert read == ["Spark"]
    assert [{each for each in part if each < 500} for part in after] == before
    assert sum(map(len, after)) == 901


@pytest.mark.spark
@pytest.mark.parametrize("kind", ["timestamp", "timestamp_ntz", "date"])
def test_parts_follow_each_other_in_time(spark: SparkSession, kind: str) -> None:
    """By shares, exact to a row; rows of one moment stay together, those without one are trained on."""
    frame = spark.range(0, 220, 1, 3).selectExpr(
        f"cast(if(id < 20, null, timestamp'2024-01-01' + make_dt_interval(int(id div 2))) as {kind}) as at",
        "id",
        "concat('c', id % 2) as label",
    )
    source = write_dataset(frame, name="table", label="label")
    parts = split_table(spark, source, SplitSpec(time="at"))
    assert [ids(part) for part in parts_of(parts)] == [
        set(range(140)),
        set(range(140, 170)),
        set(range(170, 220)),
    ]
    first, second = (dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=days) for days in (70, 85))
    assert parts.proof is not None
    assert parts.proof.cuts == (first, second)
    assert (parts.proof.distinct, parts.proof.shared) == (101, 0)
    dated = SplitSpec(time="at", validation_from=first, holdout_from=second)
    again = split_table(spark, source, dated)
    assert [part.fingerprint for part in parts_of(again)] == [part.fingerprint for part in parts_of(parts)]


@pytest.mark.spark
def test_a_cut_that_leaves_a_part_empty_says_so(spark: SparkSession) -> None:
    frame = spark.range(100).selectExpr("date'2024-01-01' as at", "id", "concat('c', id % 2) as label")
    source = write_dataset(frame, name="table", label="label")
    with pytest.raises(DataError, match=r"train and validation would be empty(.|\n)*other dates in `split`"):
        split_table(spark, source, SplitSpec(time="at"))


def test_a_split_by_time_excludes_other_ways_and_names_dates_in_order() -> None:
    day = dt.datetime(2024, 1, 1)  # noqa: DTZ001  (as a person types it)
    assert SplitSpec(time="at", validation_from=day, holdout_from=day.replace(year=2025)).validation_from == (
        day.replace(tzinfo=dt.UTC)
    )
    for wrong, said in [
        ({"time": "at", "group": "g"}, "not both"),
        ({"time": "at", "validation_from": day}, "given together"),
        ({"validation_from": day, "holdout_from": day.replace(year=2025)}, "name its column"),
        ({"time": "at", "validation_from": day, "holdout_from": day}, "is before"),
    ]:
        with pytest.raises(ValidationError, match=said):
            SplitSpec.model_validate(wrong)


@pytest.mark.spark
def test_a_key_in_two_parts_is_found(spark: SparkSession) -> None:
    source = table(spark, 50)
    parts = Parts(train=source, validation=table(spark, 10), holdout=source)
    with pytest.raises(
        StoreError, match=r"not disjoint(.|\n)*50 keys by id, 50 of them in more than one part"
    ):
        _proof(spark, parts, ("id",), None)


@pytest.mark.spark
def test_rows_of_a_group_stay_together_and_the_salt_deals_anew(spark: SparkSession) -> None:
    source = table(spark)
    dealt = []
    for salt in ("one", "two"):
        parts = split_table(spark, source, SplitSpec(group="the group", salt=salt))
        groups = [set(read_table(part)["the group"].to_pylist()) for part in parts_of(parts)]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 40
        dealt.append(groups)
    assert dealt[0] != dealt[1]


@pytest.mark.spark
def test_rows_with_equal_keys_lie_in_the_same_part(spark: SparkSession) -> None:
    frame = spark.range(300).selectExpr("id % 100 as id", "if(id % 100 < 50, 'a', 'b') as label")
    doubled = write_dataset(frame, name="table", label="label")
    found = [ids(part) for part in parts_of(split_table(spark, doubled, SplitSpec()))]
    assert sum(map(len, found)) == 100


@pytest.mark.spark
def test_too_few_rows_are_refused_with_numbers_and_nothing_stays(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("ML_PLATFORM_STORE", str(tmp_path_factory.mktemp("store")))
    tiny = table(spark, 2)
    with pytest.raises(DataError, match=r"2 rows are too few to split(.|\n)*train \d, validation \d"):
        split_table(spark, tiny, SplitSpec())
    folders = {path.name for path in local_path(data_uri()).iterdir() if list(path.iterdir())}
    assert folders == {"table"}


@pytest.mark.spark
def test_a_class_without_training_rows_is_named(spark: SparkSession) -> None:
    """One row of a class: with some salt it lies outside of the training part."""
    frame = spark.range(200).selectExpr("id", "if(id = 0, 'rare', concat('c', id % 2)) as label")
    rare = write_dataset(frame, name="table", label="label")
    outcomes = []
    for salt in "abcdef":
        try:
            split_table(spark, rare, SplitSpec(salt=salt))
            outcomes.append(None)
        except DataError as error:
            outcomes.append(str(error))
    refused = [text for text in outcomes if text]
    assert refused
    assert all("lacks 1 of 3 classes" in text and "'rare' (1 rows)" in text for text in refused)


def test_keys_are_the_group_then_the_keys_then_all_but_the_label() -> None:
    columns = tuple(Column(name=name, type="integer") for name in ("a", "b", "label"))
    contract = Contract(columns=columns, label="label")
    assert key_columns(contract, SplitSpec()) == ("a", "b")
    assert key_columns(contract, SplitSpec(key_columns=("b",))) == ("b",)
    assert key_columns(contract, SplitSpec(key_columns=("b",), group="a")) == ("a",)
    with pytest.raises(SpecError, match=r"needs column 'aa'(.|\n)*did you mean 'a'"):
        key_columns(contract, SplitSpec(group="aa"))
    with pytest.raises(
        SpecError, match=r"cannot cut by column 'a'(.|\n)*wanted: date or timestamp(.|\n)*integer"
    ):
        key_columns(contract, SplitSpec(time="a"))
