"""Fitted feature states: right, and the same for any layout; applied alike by Spark and here."""

from __future__ import annotations

import datetime as dt
import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytest

from ml_platform.data.load import load_table
from ml_platform.data.split import split_table
from ml_platform.errors import DataError, SpecError
from ml_platform.features.apply import encode_labels, transform
from ml_platform.features.fit import _merged, fit_features
from ml_platform.features.write import apply_features
from ml_platform.resources.progress import Progress, listening
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import ColumnFeatures, FeatureSpec, FeatureState, SplitSpec
from ml_platform.store.datasets import read_table, write_dataset

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

T = TypeVar("T")
ROWS = 3000
COLUMNS = (
    "id % 4 as label",
    "case when id % 10 = 0 then null when id % 10 = 1 then double('NaN') else sqrt(id) end as `x.y`",
    "cast(1990 + id % 35 as int) as year",
    "id % 3 = 0 as flag",
    "cast(id % 100 / 4 as decimal(10,2)) as price",
    "date_add(date'2020-01-01', cast(id % 60 as int)) as day",
    "timestamp_seconds(1700000000 + id) as at",
    "timestamp_ntz'2020-01-01 00:00:00' + make_dt_interval(0, 0, 0, id) as wall",
    "if(id % 7 = 0, null, concat('v', least(id % 13, 5))) as kind",
    "cast(null as double) as nothing",
    "concat('user ', id * 7919 % 1500) as user",
    "if(id % 11 = 0, null, concat_ws(' ', 'Order', id % 9, 'of', id % 5)) as note",
    "5 as constant",
    "cast(null as string) as no_text",
    "if(id % 2 = 0, 'only', null) as sometimes",
    "double('-Infinity') + if(id = 0, 0, double('NaN')) as infinite",
)


SPEC = FeatureSpec(
    columns={"note": ColumnFeatures(treat="text", buckets=32)},
    vocabulary=20,
    interactions=(("kind", "year"), ("user", "sometimes"), ("nothing", "year")),
)


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    return spark.range(0, ROWS, 1, 3).selectExpr(*COLUMNS)


@pytest.fixture(scope="module")
def train(frame: DataFrame) -> Dataset:
    return write_dataset(frame, name="train", label="label")


@pytest.fixture(scope="module")
def state(spark: SparkSession, train: Dataset) -> FeatureState:
    return fit_features(spark, train, SPEC)


def test_the_state_is_the_same_bit_for_bit_for_any_layout(
    spark: SparkSession, frame: DataFrame, state: FeatureState
) -> None:
    """Early cutoff rests on it."""
    for partitions in (1, 7):
        again = write_dataset(frame.repartition(partitions), name="train", label="label")
        assert fit_features(spark, again, SPEC).model_dump_json() == state.model_dump_json()


def test_statistics_are_those_of_numpy(train: Dataset, state: FeatureState) -> None:
    """Whole numbers exactly, others within the width of a bin."""
    table = read_table(train)
    fitted = {feature.name: feature for feature in state.numeric}
    year = table["year"].to_numpy().astype(float)
    assert (fitted["year"].fill, fitted["year"].center) == (
        np.sort(year)[(ROWS - 1) // 2],
        pytest.approx(year.mean()),
    )
    assert fitted["year"].scale == pytest.approx(year.std(), rel=1e-9)
    x = table["x.y"].to_numpy()
    x = x[np.isfinite(x)]
    assert fitted["x.y"].fill == pytest.approx(np.median(x), rel=1 / 256)
    assert fitted["x.y"].center == pytest.approx(x.mean(), rel=1 / 256)
    assert fitted["x.y"].scale == pytest.approx(x.std(), rel=1 / 256)
    assert (fitted["flag"].fill, fitted["flag"].center, fitted["flag"].scale) == (0, 0, 1)
    assert [name for name in fitted if fitted[name].missing_flag] == ["x.y"]
    assert fitted["price"].center == pytest.approx(table["price"].cast("double").to_numpy().mean(), rel=1e-9)


def test_times_become_the_parts_that_differ_and_an_age(state: FeatureState) -> None:
    fitted = {feature.name: feature for feature in state.times}
    assert fitted["day"].parts == ("month", "day", "weekday")
    assert fitted["at"].parts == ("hour",)
    assert fitted["wall"].parts == ()
    assert abs(fitted["day"].reference - dt.date(2020, 2, 29)) <= dt.timedelta(days=1)
    assert fitted["day"].age_center == pytest.approx(29.5, abs=0.5)
    # In float32 bins from zero an hour in 2023 would be one bin of 24 days.
    assert fitted["at"].age_scale * 86_400 == pytest.approx(ROWS / 12**0.5, rel=1 / 256)


def test_categories_are_ordered_by_frequency_then_name(spark: SparkSession, train: Dataset) -> None:
    spec = FeatureSpec(vocabulary=3)
    kinds = fit_features(spark, train, spec).categories
    counts = {row["values"]: row["counts"] for row in read_table(train)["kind"].value_counts().to_pylist()}
    counts.pop(None)
    expected = sorted(counts, key=lambda name: (-counts[name], name))[:3]
    assert {feature.name: feature.values for feature in kinds}["kind"] == tuple(expected)


def test_a_category_with_many_values_keeps_the_frequent_ones_and_hashes_the_others(
    state: FeatureState,
) -> None:
    fitted = {feature.name: feature for feature in state.categories}
    assert (len(fitted["user"].values), fitted["user"].buckets) == (20, 64)
    assert list(fitted["user"].values) == sorted(f"user {at}" for at in range(1500))[:20]
    assert fitted["kind"].buckets == 1


def test_texts_and_interactions_are_as_the_spec_says(
    spark: SparkSession, train: Dataset, state: FeatureState
) -> None:
    """An interaction with a column that holds nothing is left out."""
    assert [(each.name, each.buckets, each.pieces) for each in state.texts] == [("note", 32, "words")]
    pairs = [(each.left, each.right, each.buckets) for each in state.interactions]
    assert pairs == [("kind", "year", None), ("user", "sometimes", None)]
    assert len(state.feature_names) == state.width == len(set(state.feature_names))
    crossed = FeatureSpec(interactions=(("user", "user"),))
    assert fit_features(spark, train, crossed).interactions[0].buckets == 1024
    wide = FeatureSpec(interactions=(("user", "note"),), columns={"note": ColumnFeatures(treat="text")})
    with pytest.raises(SpecError, match=r"'user' and 'note' is too wide(.|\n)*at most 1024(.|\n)*vocabulary"):
        fit_features(spark, train, wide)


def test_of_many_values_those_that_are_kept_come_to_this_process(spark: SparkSession) -> None:
    """They are added up on executors, so that a million values cost this process nothing."""
    rows = spark.range(0, 20_000, 1, 3).selectExpr("id % 2 as label", "concat('v', id % 19000) as v")
    counted = _merged(rows.selectExpr("0 as column", "int(null) as bin", "v as value", "1L as count"), 256)
    assert counted.count() == 257
    part = write_dataset(rows, name="train", label="label")
    feature = fit_features(spark, part, FeatureSpec()).categories[0]
    assert feature.values == tuple(sorted(f"v{at}" for at in range(1000))[:256])
    assert feature.buckets == 64


def test_classes_are_counted_in_their_natural_order(state: FeatureState) -> None:
    assert (state.classes, state.class_counts) == (("0", "1", "2", "3"), (750,) * 4)


def test_empty_and_constant_columns_are_left_out_and_said(spark: SparkSession, train: Dataset) -> None:
    """A category that is sometimes missing is not constant."""
    heard: list[Progress] = []
    with listening(heard.append):
        state = fit_features(spark, train, FeatureSpec(drop=("at", "wall")))
    assert not {"nothing", "constant", "no_text", "infinite", "at", "wall"} & set(state.columns)
    assert "sometimes" in state.columns
    assert "nothing" in heard[-1].message
    assert "constant" in heard[-1].message


def test_impute_and_scale_follow_the_spec(spark: SparkSession, train: Dataset) -> None:
    spec = FeatureSpec(impute="mean", scale="none")
    fitted = {feature.name: feature for feature in fit_features(spark, train, spec).numeric}
    assert (fitted["year"].center, fitted["year"].scale) == (0, 1)
    assert fitted["year"].fill == pytest.approx(1990 + 17, abs=0.5)
    zero = fit_features(spark, train, FeatureSpec(impute="zero"))
    assert {feature.fill for feature in zero.numeric} == {0.0}


def test_robust_scale_logs_and_overrides_are_fitted(spark: SparkSession) -> None:
    rows = spark.range(0, ROWS, 1, 2).selectExpr(
        "id % 2 as label", "exp(id / 300) as income", "id as x", "if(id % 4 = 0, null, 7) as sometimes"
    )
    part = write_dataset(rows, name="train", label="label")
    columns = {"x": ColumnFeatures(scale="none")}
    spec = FeatureSpec(scale="robust", columns=columns)
    fitted = {feature.name: feature for feature in fit_features(spark, part, spec).numeric}
    assert [name for name in fitted if fitted[name].log] == ["income"]
    assert fitted["income"].center == pytest.approx(np.log1p(np.exp(5)), rel=1 / 256)
    assert fitted["income"].scale == pytest.approx(5, rel=1 / 50)
    assert (fitted["x"].center, fitted["x"].scale) == (0, 1)
    assert (fitted["sometimes"].missing_flag, fitted["sometimes"].fill) == (True, 7)
    plain = fit_features(spark, part, FeatureSpec(missing_flag=False, log="never"))
    assert [(feature.name, feature.log) for feature in plain.numeric] == [("income", False), ("x", False)]


def test_extremes_and_every_year_are_fitted_and_finite(spark: SparkSession) -> None:
    """One value of 1e308 does not take the others' place; all years that have a name are read."""
    rows = spark.range(0, 400, 1, 2).selectExpr(
        "id % 2 as label",
        "case when id = 0 then double('NaN') when id = 1 then double('Infinity') when id = 2 then 1e308D "
        "when id = 3 then -1e308D when id = 4 then -0.0D else cast(id % 50 as double) end as x",
        "9007199254740993 + id as big",
        "case when id = 0 then date'0001-01-01' when id = 1 then date'9999-12-31' "
        "else date_add(date'2020-01-01', cast(id as int)) end as day",
        "case when id = 0 then timestamp'0001-01-01 00:00:00' when id = 1 then null "
        "when id = 2 then timestamp'9999-12-31 23:59:59' else timestamp_seconds(1700000000 + id) end as at",
    )
    part = write_dataset(rows, name="train", label="label")
    state = fit_features(spark, part, FeatureSpec(scale="robust"))
    fitted = {feature.name: feature for feature in state.features}
    assert fitted["x"].fill == pytest.approx(24, abs=1)
    assert fitted["big"].scale == pytest.approx(200, abs=2)
    assert fitted["day"].parts == ("year", "month", "day", "weekday")
    assert fitted["at"].missing_flag
    written, raw = read_table(apply_features(spark, part, state)), read_table(part)
    ours = transform(raw, state)
    assert np.isfinite(ours).all()
    assert sorted(written["features"].to_pylist()) == sorted(row.tobytes() for row in ours)


def test_an_unknown_column_to_drop_is_named(spark: SparkSession, train: Dataset) -> None:
    with pytest.raises(SpecError, match=r"features.drop names column 'yaer'(.|\n)*did you mean 'year'"):
        fit_features(spark, train, FeatureSpec(drop=("yaer",)))


def test_nothing_left_to_learn_from_is_an_error(spark: SparkSession, frame: DataFrame) -> None:
    bare = write_dataset(frame.select("label", "constant", "nothing"), name="bare", label="label")
    with pytest.raises(DataError, match="no column is left"):
        fit_features(spark, bare, FeatureSpec())


def test_spark_and_this_process_compute_the_same_bits(
    spark: SparkSession, train: Dataset, state: FeatureState
) -> None:
    """No skew between what is trained on and what is served."""
    written = apply_features(spark, train, state)
    assert written.contract["features"].width == state.width
    assert written.uri.split("/")[-2] == "train-features"
    table, raw = read_table(written), read_table(train)
    ours = transform(raw, state)
    labels = encode_labels(raw["label"], state).tolist()
    # Spark may read files in another order than the manifest's.
    theirs = zip(table["label"].to_pylist(), table["features"].to_pylist(), strict=True)
    assert sorted(theirs) == sorted(zip(labels, [row.tobytes() for row in ours], strict=True))
    assert np.isfinite(ours).all()
    scaled = ours[:, [state.feature_names.index(name) for name in ("x.y", "year", "price", "at.age_days")]]
    assert np.abs(scaled.mean(axis=0)).max() < 0.25
    start = sum(feature.width for feature in (*state.numeric, *state.times))
    one_hot = ours[:, start : start + sum(feature.width for feature in state.categories)]
    assert one_hot.sum() == ROWS * len(state.categories)


def passes(spark: SparkSession, work: Callable[[], object]) -> tuple[int, list[int]]:
    """Stages that Spark runs for a piece of work, and the rows that each reads which reads a table."""
    context = spark.sparkContext
    group = f"passes of {work!r}"
    context.setJobGroup(group, group)
    try:
        work()
    finally:
        context.setLocalProperty("spark.jobGroup.id", None)
    tracker, store = context.statusTracker(), context._jsc.sc().statusStore()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    numbers = {stage for job in jobs if job is not None for stage in job.stageIds}
    stages = [store.lastStageAttempt(number) for number in sorted(numbers)]
    ran = [stage for stage in stages if stage.numCompleteTasks()]
    return len(ran), [stage.inputRecords() for stage in ran if stage.inputRecords()]


def test_the_table_is_read_once_whatever_the_number_of_columns(spark: SparkSession) -> None:
    """Target encodings read it once more, all of them together."""
    spent = []
    for columns in (5, 150):
        kinds = ("id % 7", "concat('v', id % 9)", "sqrt(id)", "date_add(date'2024-01-01', cast(id as int))")
        frame = spark.range(0, 400, 1, 2).selectExpr(
            "id % 2 as label", *(f"{kinds[at % len(kinds)]} as c{at}" for at in range(columns))
        )
        train = write_dataset(frame, name="train", label="label")
        by_label = {f"c{at}": ColumnFeatures(treat="target") for at in range(columns) if at % len(kinds) == 1}
        specs = (FeatureSpec(), FeatureSpec(columns=by_label))
        spent += [passes(spark, partial(fit_features, spark, train, spec)) for spec in specs]
    (stages, read), (more, read_by_label) = spent[:2]
    assert spent[2:] == spent[:2]
    assert (read, read_by_label) == ([400], [400, 400])
    assert stages < more


def grown(work: Callable[[], T]) -> tuple[int, T]:
    """By how many bytes this process was larger meanwhile than before, and the result."""

    def held(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = held("VmRSS")
    result = work()
    return held("VmHWM") - before, result


@pytest.mark.long
def test_a_category_of_a_million_values_takes_small_memory(spark: SparkSession, tmp_path: Path) -> None:
    """Loaded, dealt and counted on executors: this process gets a sample and the vocabulary alone. A million
    strings of Python's would be 100 MiB each time that they were held."""
    rows, often = 1_100_000, 20
    source = tmp_path / "many.csv"
    with source.open("w") as file:
        file.write("many,label\n")
        file.writelines(
            f"{f'often {at // 11 % often:02}' if at % 11 == 0 else f'value {at:09}'},{'yn'[at % 2]}\n"
            for at in range(rows)
        )
    spec = FeatureSpec(vocabulary=often, columns={"many": ColumnFeatures(treat="category")})

    def work() -> FeatureState:
        table = load_table(spark, str(source), "label")
        assert table.profile is not None
        assert table.profile.columns[0].distinct > 900_000
        split_table(spark, table.data, SplitSpec())
        return fit_features(spark, table.data, spec)

    larger, state = grown(work)
    assert larger < 80 << 20
    (fitted,) = state.categories
    assert set(fitted.values) == {f"often {at:02}" for at in range(often)}
    assert fitted.buckets == 64
