"""Any model: recognised unopened, bound to columns; every row gets a prediction or an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.errors import DataError, SpecError
from ml_platform.inference import any_model
from ml_platform.inference.any_model import Asking, check_own, isolated, predict_table, predicted, tried
from ml_platform.inference.binding import Bound, bind
from ml_platform.inference.flavours import OpenedModel, check_consent, open_model, recognise
from ml_platform.inference.parts import file_parts
from ml_platform.inference.saved_model_file import check_signature
from ml_platform.inference.score import Output
from ml_platform.specs.references import ModelFiles
from ml_platform.store.folders import local_path
from ml_platform.store.manifest import DataFile
from ml_platform.tracking.server import ALLOW_PICKLE, SETTINGS
from tests.inference.models_of_others import NAMES, OTHERS, ROWS, WIDTH, Other, features, network, table

pytestmark = pytest.mark.horovod
"""TensorFlow is imported."""

PICKLES = {"sklearn", "pyfunc"}


@pytest.fixture(autouse=True)
def as_in_a_flow_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is told to open no pickle, wherever one may lie."""
    monkeypatch.setenv(ALLOW_PICKLE, SETTINGS[ALLOW_PICKLE])


@pytest.fixture(scope="module", params=list(OTHERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def other(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Other:
    return OTHERS[kind](tmp_path_factory.mktemp("a folder #1 é"))


def opened(path: Path, signature: str = "serving_default") -> tuple[ModelFiles, OpenedModel]:
    found = recognise(path, str(path))
    return found, open_model(local_path(found.path) / found.entry, found.flavour, signature)


def rows_of(model: OpenedModel, rows: pa.Table, asked: tuple[str, ...] = NAMES) -> tuple[pa.Table, Any]:
    """As an executor does it."""
    types = {field.name: field.type for field in rows.schema}
    bound = bind(model.needs, types, asked)
    batch = rows.combine_chunks().to_batches()[0]
    schema = tried(model, bound, [batch])
    return isolated(lambda piece: predicted(model, bound, piece), batch, schema)


def test_every_kind_is_recognised_and_predicts_what_it_does_anywhere(kind: str, other: Other) -> None:
    found, model = opened(other.path)
    assert (found.flavour, len(found.digest)) == (kind, 64)
    predictions, errors = rows_of(model, table())
    assert errors == [None] * ROWS
    got = np.array(predictions.column("prediction").to_pylist())
    if got.dtype.kind == "U":
        assert got.tolist() == other.expected.tolist()
    else:
        np.testing.assert_allclose(got, other.expected, atol=1e-5)


def test_a_null_row_has_an_error_and_the_others_their_prediction(kind: str, other: Other) -> None:
    """But for trees, to which a null is a missing value."""
    spoiled = table().set_column(2, "x1", pa.array([None, *table().column("x1").to_pylist()[1:]]))
    predictions, errors = rows_of(opened(other.path)[1], spoiled)
    assert [row for row, error in enumerate(errors) if error] == ([] if kind == "xgboost" else [0])
    if kind in ("keras", "saved_model"):
        assert errors[0] == "column 'x1' is null"
    assert predictions.num_rows == ROWS


def test_what_is_a_pickle_needs_consent_and_the_rest_does_not(kind: str, other: Other) -> None:
    found = recognise(other.path, str(other.path))
    check_consent(found, trust_pickle=True)
    if kind not in PICKLES:
        check_consent(found, trust_pickle=False)
        return
    with pytest.raises(SpecError, match="opening it runs whatever code its author put there") as caught:
        check_consent(found, trust_pickle=False)
    assert "trust_pickle=True, or --trust-pickle" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_table_without_a_column_is_refused_by_name(other: Other) -> None:
    _, model = opened(other.path)
    types = dict.fromkeys(("x0", "x1", "x9", "y"), pa.float64())
    if model.needs.kind == "frame" or model.needs.columns:
        with pytest.raises(DataError, match="the table lacks 2 of 4 columns"):
            bind(model.needs, types, ())
    else:
        with pytest.raises(SpecError, match="it is not clear which columns make the model's input"):
            bind(model.needs, {**types, "z": pa.float64()}, ())
    with pytest.raises(SpecError, match="no column 'x7' in the table"):
        bind(model.needs, types, ("x7",))


def test_vectors_of_any_writing_make_a_tensor(tmp_path: Path) -> None:
    """Lists, lists of one size, packed bytes; a row of another length is that row's error."""
    from ml_platform.inference.binding import Input, tensor

    each = Input(name="pixels", shape=(2, 2))
    values = features()[:3]
    packed = pa.array([row.tobytes() for row in values], pa.binary())
    writings = [
        pa.array(values.tolist(), pa.list_(pa.float64())),
        pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 4),
        packed,
        packed.cast(pa.binary(16)),
    ]
    for column in writings:
        for sliced in (column, pa.concat_arrays([column[:1], column])[1:]):
            got, errors = tensor(pa.record_batch({"v": sliced}), ["v"], each)
            np.testing.assert_allclose(got, values.reshape(3, 2, 2))
            assert errors is None
    lists = pa.array([values[0].tolist(), [1.0], None, [1.0, None, 2.0, 3.0]], pa.list_(pa.float32()))
    got, errors = tensor(pa.record_batch({"v": lists}), ["v"], each)
    assert errors == [
        None,
        "column 'v' has 1 values, not the 4 of shape (2, 2)",
        "column 'v' is null",
        "column 'v' has a null among its values",
    ]
    np.testing.assert_allclose(got[0].ravel(), values[0])
    bytes_of = pa.array([values[0].tobytes(), b"12345", None], pa.binary())
    _, errors = tensor(pa.record_batch({"v": bytes_of}), ["v"], each)
    assert errors is not None
    assert [bool(error) for error in errors] == [False, True, True]


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ({"v": pa.list_(pa.float32(), 5)}, "is of another shape than the model's input"),
        ({"x0": pa.string(), **dict.fromkeys(NAMES[1:], pa.float64())}, "column 'x0' makes no numbers"),
        (dict.fromkeys(NAMES[:3], pa.float64()), "it is not clear which columns"),
    ],
)
def test_a_table_that_makes_no_such_tensor_is_refused(types: dict[str, pa.DataType], said: str) -> None:
    """Before anything is scored: a vector of another size, text among numbers, too few columns."""
    from ml_platform.inference.binding import Input, Needs

    needs = Needs(kind="tensors", inputs=(Input(name="pixels", shape=(WIDTH,)),))
    with pytest.raises((DataError, SpecError), match=said):
        bind(needs, types, ())


def test_a_saved_model_without_the_signature_names_those_it_has(tmp_path: Path) -> None:
    """Without opening it; by the URI that was given, not by the folder that it was fetched to."""
    path = OTHERS["saved_model"](tmp_path).path
    model = recognise(path, "models:/net/3")
    with pytest.raises(SpecError, match="models:/net/3 has no signature 'serve_default'") as caught:
        check_signature(model, "serve_default")
    assert "signatures: serve, serving_default" in str(caught.value)
    assert "did you mean 'serving_default'?" in str(caught.value)
    check_signature(model, "serve")


def test_a_signature_of_what_has_none_is_refused(tmp_path: Path) -> None:
    model = recognise(OTHERS["keras"](tmp_path).path, "net.keras")
    with pytest.raises(SpecError, match=r"net\.keras has no signatures") as caught:
        check_signature(model, "serve")
    assert "got: keras, signature 'serve'" in str(caught.value)
    check_signature(model, "serving_default")


@pytest.mark.parametrize("asking", [Asking(columns=("x0",)), Asking(signature="serve")])
def test_what_a_model_of_this_platform_would_not_heed_is_refused(asking: Asking) -> None:
    check_own("models:/digits/1", Asking())
    with pytest.raises(SpecError, match=r"models:/digits/1 is a model of this platform(.|\n)*leave out --"):
        check_own("models:/digits/1", asking)


def test_a_saved_model_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    path = OTHERS["saved_model"](tmp_path).path
    (path / "saved_model.pb").write_bytes(b"\xff" * 20)
    with pytest.raises(DataError, match="models:/net/3 cannot be read as a SavedModel"):
        check_signature(recognise(path, "models:/net/3"), "serve")


def test_a_model_without_a_signature_asks_for_its_columns(tmp_path: Path) -> None:
    """An estimator that was fitted on bare arrays does not know how they are called."""
    import pickle

    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(features(), features().sum(axis=1))
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(model))
    _, bare = opened(tmp_path / "bare.pkl")
    types = {field.name: field.type for field in table().schema}
    with pytest.raises(SpecError, match="it has no signature") as caught:
        bind(bare.needs, types, ())
    assert "--columns a b c" in str(caught.value)
    assert bind(bare.needs, dict.fromkeys(NAMES, pa.float64()), ()).names == NAMES
    predictions, _ = rows_of(bare, table())
    np.testing.assert_allclose(predictions.column(0).to_numpy(), features().sum(axis=1), atol=1e-5)


def test_a_pyfunc_model_without_a_signature_asks_for_its_columns(tmp_path: Path) -> None:
    import mlflow.pyfunc

    class Second(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input.iloc[:, 1]

    mlflow.pyfunc.save_model(tmp_path / "second", python_model=Second(), pip_requirements=[])
    _, model = opened(tmp_path / "second")
    with pytest.raises(SpecError, match="it has no signature") as caught:
        bind(model.needs, {field.name: field.type for field in table().schema}, ())
    assert "--columns a b c" in str(caught.value)
    predictions, _ = rows_of(model, table(), ("x3", "x1"))
    np.testing.assert_allclose(predictions.column(0).to_numpy(), features()[:, 1], atol=1e-5)


def test_keras_code_is_not_run(tmp_path: Path) -> None:
    import keras

    layers = [keras.layers.Input((WIDTH,)), keras.layers.Lambda(lambda x: x * 2)]
    keras.Sequential(layers).save(tmp_path / "code.keras")
    with pytest.raises(DataError, match="without running code of its own") as caught:
        opened(tmp_path / "code.keras")
    assert "export a SavedModel" in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.keras", "notes.txt", "folder"])
def test_what_is_no_model_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError):
        recognise(tmp_path / name, name)


def test_rows_are_padded_and_the_network_is_traced_for_few_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any number of rows; the size of a batch is measured once there are enough of them."""
    from ml_platform.inference import batched
    from ml_platform.inference.batched import Batched

    monkeypatch.setattr(batched, "SIZES", (4, 16, 64))
    shapes = []

    def call(arrays: Any) -> Any:
        shapes.append(len(arrays[0]))
        return [arrays[0].sum(axis=1)]

    run = Batched(call, row_bytes=16)
    for rows in (1, 5, 63, 64, 300):
        given = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
        np.testing.assert_array_equal(run([given])[0], given.sum(axis=1))
    assert set(shapes) <= {4, 16, 64}
    assert run.size in {4, 16, 64}
    assert Batched(call, row_bytes=1 << 30)([np.ones((3, 2))])[0].tolist() == [2, 2, 2]


def test_a_network_of_the_tests_has_a_name_for_its_input(tmp_path: Path) -> None:
    """A column of vectors that is called like it is taken, whatever else is there."""
    network(tmp_path).save(tmp_path / "net.keras")
    _, model = opened(tmp_path / "net.keras")
    types = {"id": pa.int64(), "pixels": pa.list_(pa.float32()), "other": pa.list_(pa.float32())}
    assert bind(model.needs, types, ()) == Bound(columns=(("pixels", ("pixels",)),))


@pytest.mark.spark
def test_on_spark_every_kind_gives_the_same(spark: Any, kind: str, other: Other, tmp_path: Path) -> None:
    """From Parquet, without that the driver opens the model; a second scoring takes all of it over."""
    from ml_platform.data.parquet_source import ParquetSource
    from ml_platform.data.sources import open_source

    (tmp_path / "rows").mkdir()
    given = _without_a_number(table(), 7)
    for part in range(2):
        pq.write_table(given.slice(part * 150, 150), tmp_path / "rows" / f"{part}.parquet")
    source = open_source(str(tmp_path / "rows"))
    assert isinstance(source, ParquetSource)
    model = recognise(other.path, str(other.path))

    def scored(files: tuple[DataFile, ...]) -> Any:
        return predict_table(
            spark,
            model,
            source.frame(spark),
            asking=Asking(trust_pickle=True),
            keys=("id",),
            output=Output(str(tmp_path / "scores")),
            parts=file_parts(files),
        )

    assert (scored(source.plain_files()).rows, scored(source.plain_files()).reused_rows) == (ROWS, ROWS)
    assert scored(()).reused_rows == 0, "a frame is known by its rows, not by its files"
    rows = pq.read_table(tmp_path / "scores").sort_by("id")
    assert rows.column_names == ["id", "prediction", "error", "model_name", "model_version"]
    bad = [at for at, error in enumerate(rows.column("error").to_pylist()) if error is not None]
    assert bad == ([] if kind == "xgboost" else [7]), "a null is a missing value to trees, else an error"
    assert rows.column("prediction")[7].is_valid == (kind == "xgboost")
    good = [at for at in range(ROWS) if at != 7]
    got = np.array(rows.column("prediction").take(good).to_pylist())
    if got.dtype.kind == "U":
        assert got.tolist() == other.expected[good].tolist()
    else:
        np.testing.assert_allclose(got, other.expected[good], atol=1e-5)


@pytest.mark.spark
def test_on_spark_a_table_without_a_good_row_or_without_any_is_scored(
    spark: Any, kind: str, other: Other, tmp_path: Path
) -> None:
    """What the model gives is known all the same: the columns are those of any other table."""
    model = recognise(other.path, str(other.path))
    one = table().slice(0, 1)
    schemas = []
    for name, rows in {"good": one, "bad": _without_a_number(one, 0), "none": one.slice(0, 0)}.items():
        output = Output(str(tmp_path / name))
        frame, asking = spark.createDataFrame(rows), Asking(trust_pickle=True)
        got = predict_table(spark, model, frame, asking=asking, keys=("id",), output=output)
        failed = int(name == "bad" and kind != "xgboost")
        assert (got.rows, got.failed_rows) == (rows.num_rows, failed), name
        schemas.append(pq.read_table(tmp_path / name).schema)
    assert schemas[0] == schemas[1] == schemas[2]


def test_a_model_that_takes_no_row_at_all_gives_texts(tmp_path: Path) -> None:
    """Nobody knows its type then, and as a text any later prediction could be written."""
    _, model = opened(OTHERS["pyfunc"](tmp_path).path)
    rows = _without_a_number(table().slice(0, 1), 0).to_batches()
    assert tried(model, Bound(columns=(("", NAMES),)), rows) == pa.schema([("prediction", pa.string())])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.int8(), 0),
        (pa.float64(), 0.0),
        (pa.string(), "0"),
        (pa.decimal128(12, 2), None),
        (pa.date32(), None),
        (pa.list_(pa.float32()), None),
    ],
    ids=str,
)
def test_a_row_to_try_is_of_any_type_that_a_table_may_have(kind: pa.DataType, value: object) -> None:
    """Of zeros, or of nulls: a table with a column of prices is scored like any other."""
    row = any_model._zeros(pa.schema([("x", kind)]))
    assert (row.schema, row.to_pylist()) == (pa.schema([("x", kind)]), [{"x": value}])


def _without_a_number(rows: pa.Table, row: int) -> pa.Table:
    values = rows.column("x1").to_pylist()
    values[row] = None
    return rows.set_column(2, "x1", pa.array(values, pa.float64()))


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({256: 1.0, 1024: 1.0, 4096: 10.0}, 1024),
        ({256: 1.0, 1024: 4.0, 4096: 16.0}, 256),
        ({256: 1.0, 1024: 4.0, 4096: 15.0}, 4096),
    ],
    ids=["the fastest", "of equal ones the smallest", "a little faster is enough"],
)
def test_the_size_of_a_batch_is_the_one_with_most_rows_per_second(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], best: int
) -> None:
    """Of processor time; a call's cost is that of its rows here. The first call of a size, which traces, does
    not count."""
    from ml_platform.inference import batched

    clock, traced = [0.0], set()

    def call(arrays: Any) -> Any:
        rows = len(arrays[0])
        clock[0] += seconds[rows] if rows in traced else 1000.0
        traced.add(rows)
        return arrays

    monkeypatch.setattr(batched.time, "process_time", lambda: clock[0])
    run = batched.Batched(call, row_bytes=4)
    run([np.zeros((4096, 1), np.float32)])
    assert run.size == best


def test_a_network_is_traced_once_for_each_size_of_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one: whatever numbers of rows it gets, its layers run in Python for no other shapes."""
    import functools

    import keras

    from ml_platform.inference.batched import SIZES

    shapes = []
    plain = keras.layers.Dense.call

    @functools.wraps(plain)
    def noted(self: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        shapes.append(inputs.shape[0])
        return plain(self, inputs, *rest, **more)

    network(tmp_path).save(tmp_path / "net.keras")
    monkeypatch.setattr(keras.layers.Dense, "call", noted)
    _, model = opened(tmp_path / "net.keras")
    shapes.clear()
    for rows in (1, 5, 60, 300, 5000, 2, 59, 301, 4999):
        found = model.predict({"pixels": np.ones((rows, WIDTH), np.float32)})
        assert len(found["prediction" if "prediction" in found else next(iter(found))]) == rows
    assert len(shapes) == len(set(shapes)), "none is traced twice"
    assert set(shapes) <= set(SIZES)
