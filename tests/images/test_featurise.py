"""Features of images: what Spark gives is what Keras gives, for any network and any layer."""

from __future__ import annotations

import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.errors import PythonException

from ml_platform.errors import DataError, InfrastructureError, SpecError
from ml_platform.images.backbone import (
    BackboneSpec,
    Features,
    application_names,
    applications,
    backbone_identity,
    check_backbone,
    write_backbone,
)
from ml_platform.images.featurise import batch_images, forward, ship_backbone
from ml_platform.images.schema import image_struct, spark_schema
from ml_platform.images.sql import register_keras_image_udf
from tests.images.pictures import gradient

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.horovod]

SIZE = (40, 48)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user's own small network, with two layers worth having."""
    import keras

    keras.utils.set_random_seed(7)
    inputs = keras.Input((*SIZE, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="early")(x)
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="late")(x)
    path = tmp_path_factory.mktemp("network") / "mine.keras"
    keras.Model(inputs, x).save(path)
    return str(path)


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8] | None]:
    """B G R, of the network's size; more than one batch; some are null."""
    return [None if at % 9 == 4 else gradient(*SIZE, seed=at)[:, :, ::-1] for at in range(50)]


@pytest.fixture(scope="module")
def frame(spark: SparkSession, images: list[NDArray[np.uint8] | None]) -> DataFrame:
    from pyspark.sql import types as T  # noqa: N812

    schema = T.StructType([T.StructField("id", T.IntegerType()), T.StructField("image", spark_schema())])
    rows = [(at, None if pixels is None else image_struct(pixels)) for at, pixels in enumerate(images)]
    return spark.createDataFrame(rows, schema).repartition(3)


def alone(path: Path | str, pixels: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """What Keras itself gives for B G R pixels."""
    import keras

    model = keras.saving.load_model(path)
    found: NDArray[np.float32] = model.predict(np.stack(pixels)[:, :, :, ::-1].astype(np.float32), verbose=0)
    return found


def test_spark_gives_what_keras_gives(
    network: str, frame: DataFrame, images: list[NDArray[np.uint8] | None]
) -> None:
    """With a null where there is no image, in any partition, over more than one batch."""
    backbone = ship_backbone(frame.sparkSession, BackboneSpec(name=network))
    rows = frame.select("id", backbone.column("image").alias("features")).orderBy("id").collect()
    assert [row.features is None for row in rows] == [pixels is None for pixels in images]
    expected = alone(network, [pixels for pixels in images if pixels is not None]).mean(axis=(1, 2))
    got = np.array([row.features for row in rows if row.features is not None])
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_several_layers_come_in_one_vector(network: str, tmp_path: Path) -> None:
    import keras

    features = write_backbone(
        BackboneSpec(name=network, layers=("late", "early"), pooling="max"), tmp_path / "two.keras"
    )
    assert features == Features(size=SIZE, layers={"late": 6, "early": 4})
    pixels = [gradient(*SIZE)[:, :, ::-1]]
    vector = alone(tmp_path / "two.keras", pixels)
    assert vector.shape == (1, 10)
    np.testing.assert_allclose(vector[:, :6], alone(network, pixels).max(axis=(1, 2)), atol=1e-6)
    model = keras.saving.load_model(network)
    early = keras.Model(model.inputs, model.get_layer("early").output)
    rgb = gradient(*SIZE)[None].astype(np.float32)
    expected = early.predict(rgb, verbose=0).max(axis=(1, 2))
    np.testing.assert_allclose(vector[:, 6:], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("InceptionV3", lambda rgb: rgb / 127.5 - 1),
        ("Xception", lambda rgb: rgb / 127.5 - 1),
        ("ResNet50", lambda rgb: rgb[..., ::-1] - [103.939, 116.779, 123.68]),
        ("VGG16", lambda rgb: rgb[..., ::-1] - [103.939, 116.779, 123.68]),
        ("VGG19", lambda rgb: rgb[..., ::-1] - [103.939, 116.779, 123.68]),
    ],
)
def test_preprocessing_of_the_five_is_the_known_one(name: str, scale: Any) -> None:
    rgb = gradient(5, 7).astype(np.float32)
    np.testing.assert_allclose(applications()[name].preprocess_input(rgb.copy()), scale(rgb), rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "side", "width"),
    [
        ("InceptionV3", 299, 131_072),
        ("Xception", 299, 204_800),
        ("ResNet50", 224, 100_352),
        ("VGG16", 224, 25_088),
        ("VGG19", 224, 25_088),
    ],
)
def test_geometry_of_the_five_is_the_known_one(name: str, side: int, width: int, tmp_path: Path) -> None:
    """What Deep Learning Pipelines took, and how long its vectors were."""
    import keras

    spec = BackboneSpec(name=name, weights="none", pooling="flat")
    features = write_backbone(spec, tmp_path / "five.keras")
    assert (features.size, features.width) == ((side, side), width)
    written = keras.saving.load_model(tmp_path / "five.keras", compile=False)
    assert (written.input_shape, written.output_shape) == ((None, side, side, 3), (None, width))


@pytest.mark.long
def test_an_application_is_cut_before_its_top_with_its_preprocessing_inside(tmp_path: Path) -> None:
    """`flat` is the geometry of Deep Learning Pipelines: all values of the last map."""
    import keras

    spec = BackboneSpec(name="MobileNetV2", weights="none", pooling="flat", size=(32, 32))
    features = write_backbone(spec, tmp_path / "flat.keras")
    assert features.width == 1 * 1 * 1280
    keras.utils.set_random_seed(spec.seed)
    model = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    rgb = gradient(32, 32).astype(np.float32)
    expected = model.predict(rgb[None] / 127.5 - 1, verbose=0).reshape(1, -1)
    np.testing.assert_allclose(
        alone(tmp_path / "flat.keras", [gradient(32, 32)[:, :, ::-1]]), expected, atol=1e-5
    )


def test_all_applications_have_their_preprocessing() -> None:
    known = applications()
    assert {"MobileNetV3Small", "EfficientNetB0", "ConvNeXtTiny", "NASNetMobile"} <= known.keys()
    assert all(callable(module.preprocess_input) for module in known.values())


def test_a_misspelt_backbone_is_found_without_keras() -> None:
    """Its names are read, since importing it takes seconds; they are those that it has."""
    assert application_names() == applications().keys()
    with pytest.raises(SpecError, match=r"no backbone 'resnet50'(.|\n)*did you mean 'ResNet50'\?"):
        check_backbone(BackboneSpec(name="resnet50"))
    with pytest.raises(SpecError, match=r"did you mean 'pixels'\?"):
        check_backbone(BackboneSpec(name="pixel"))
    for name in ("pixels", "VGG16", "MobileNetV3Small"):
        check_backbone(BackboneSpec(name=name))


def test_what_cannot_be_built_says_so(network: str, tmp_path: Path) -> None:
    import keras

    with pytest.raises(SpecError, match="no backbone 'ResNet5'"):
        write_backbone(BackboneSpec(name="ResNet5"), tmp_path / "x.keras")
    with pytest.raises(SpecError, match="no layer 'lat'"):
        write_backbone(BackboneSpec(name=network, layers=("lat",)), tmp_path / "x.keras")
    with pytest.raises(DataError, match="cannot be opened"):
        write_backbone(BackboneSpec(name=str(tmp_path / "missing.keras")), tmp_path / "x.keras")
    with pytest.raises(DataError, match="no file"):
        write_backbone(BackboneSpec(name="VGG16", weights="missing.h5"), tmp_path / "x.keras")
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(DataError, match="VGG16 cannot be built"):
        write_backbone(BackboneSpec(name="VGG16", weights=str(tmp_path / "text.h5")), tmp_path / "x.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "table.keras")
    with pytest.raises(DataError, match="takes no images"):
        write_backbone(BackboneSpec(name=str(tmp_path / "table.keras")), tmp_path / "x.keras")


class _Web(SimpleHTTPRequestHandler):
    """Files of a folder; of one that is called `cut…` a part, and then the connection is reset."""

    def do_GET(self) -> None:
        if "cut" not in self.path:
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(bytes(1000))
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return self.connection.close()

    def finish(self) -> None:
        if "cut" not in getattr(self, "path", ""):
            super().finish()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """URL and folder of a web server on this machine; nothing was copied from it before."""
    folder = tmp_path / "www"
    folder.mkdir()
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it would keep the proxies of its first use
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Web, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_weights_of_a_url_are_loaded_and_count_by_content(web: tuple[str, Path], tmp_path: Path) -> None:
    import keras

    address, folder = web

    def served(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        model = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
        model.save_weights(folder / "mine v1.weights.h5")
        return model

    spec = BackboneSpec(name="MobileNet", weights=f"{address}/mine%20v1.weights.h5", size=(32, 32))
    model = served(5)
    before = backbone_identity(spec)
    write_backbone(spec, tmp_path / "url.keras")
    pixels = [gradient(32, 32)[:, :, ::-1]]
    rgb = gradient(32, 32).astype(np.float32)[None] / 127.5 - 1
    expected = model.predict(rgb, verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(alone(tmp_path / "url.keras", pixels), expected, atol=1e-5)
    assert list(before) == [spec.weights]
    assert backbone_identity(spec) == before
    served(6)
    assert backbone_identity(spec) != before
    with pytest.raises(DataError, match="there is no file"):
        backbone_identity(spec.model_copy(update={"weights": f"{address}/none.h5"}))


@pytest.mark.parametrize("fault", ["offline", "reset"])
def test_without_a_network_training_from_scratch_is_proposed(
    fault: str, web: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras' own download: no way out of this machine, or a connection that breaks within the file."""
    from keras.src.applications import vgg16
    from keras.src.backend import config

    from ml_platform.resources.ports import free_port

    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path / "keras"))  # it is read from KERAS_HOME at import
    (tmp_path / "keras").mkdir()
    if fault == "offline":
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free_port()}")
    else:
        monkeypatch.setattr(vgg16, "WEIGHTS_PATH_NO_TOP", f"{web[0]}/cut.h5")
    with pytest.raises(InfrastructureError, match="imagenet weights of VGG16 cannot be fetched") as caught:
        write_backbone(BackboneSpec(name="VGG16", size=(32, 32)), tmp_path / "x.keras")
    assert "--backbone.weights FILE; or none, with --trainers fine_tune" in str(caught.value)


def test_local_weights_count_by_content(network: str, tmp_path: Path) -> None:
    before = backbone_identity(BackboneSpec(name=network))
    assert list(before) == [network]
    copy = tmp_path / "copy.keras"
    copy.write_bytes(Path(network).read_bytes())
    assert [*backbone_identity(BackboneSpec(name=str(copy))).values()] == [*before.values()]


def test_a_stage_of_a_pipeline_is_saved_and_loaded(network: str, frame: DataFrame, tmp_path: Path) -> None:
    from pyspark.ml import Pipeline, PipelineModel

    from ml_platform.images.transformer import ImageFeaturizer

    stage = ImageFeaturizer(modelName=network, layers=["early"], pooling="max", outputCol="vector")
    model = Pipeline(stages=[stage]).fit(frame)
    model.save(str(tmp_path / "pipeline"))
    again = PipelineModel.load(str(tmp_path / "pipeline"))
    spec = again.stages[0].spec
    assert spec == BackboneSpec(name=spec.name, layers=("early",), pooling="max")
    some = frame.where("id < 6")
    first, second = (
        {row.id: row.vector for row in chosen.transform(some).collect()} for chosen in (model, again)
    )
    assert first == second
    assert first[4] is None
    assert len(first[0]) == 4


def test_a_saved_stage_has_its_network_along(
    network: str, frame: DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine: the file is gone, the Pipeline lies in another folder, nothing is in the store."""
    from pyspark.ml import Pipeline, PipelineModel

    from ml_platform.images.transformer import ImageFeaturizer

    own = tmp_path / "mine #1 é.keras"
    own.write_bytes(Path(network).read_bytes())
    some = frame.where("id < 3").orderBy("id")
    model = Pipeline(stages=[ImageFeaturizer(modelName=str(own))]).fit(frame)
    expected = [row.features for row in model.transform(some).collect()]
    model.write().overwrite().save(str(tmp_path / "pipeline"))
    model.write().overwrite().save(str(tmp_path / "pipeline"))
    own.unlink()
    with pytest.raises(DataError, match=r"no file .*mine #1 é.keras to save"):
        model.save(str(tmp_path / "nothing"))
    (tmp_path / "pipeline").rename(tmp_path / "moved #2 é")
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "another home"))
    for folder in ("moved #2 é", "saved again"):
        again = PipelineModel.load(str(tmp_path / folder))
        assert [row.features for row in again.transform(some).collect()] == expected
        if folder != "saved again":
            again.save(str(tmp_path / "saved again"))


def test_a_saved_stage_has_a_file_of_weights_along(frame: DataFrame, tmp_path: Path) -> None:
    """A name of Keras or a URL stays what it is."""
    from ml_platform.images.transformer import ImageFeaturizer

    weights = tmp_path / "tiny.weights.h5"
    weights.write_bytes(b"weights")
    ImageFeaturizer(modelName="MobileNetV2", weights=str(weights)).save(str(tmp_path / "stage"))
    ImageFeaturizer(modelName="MobileNetV2", weights="https://x.org/w.h5").save(str(tmp_path / "url"))
    weights.unlink()
    spec = ImageFeaturizer.load(str(tmp_path / "stage")).spec
    assert spec.name == "MobileNetV2"
    assert Path(spec.weights).read_bytes() == b"weights"
    assert spec.weights.endswith(".weights.h5")
    assert ImageFeaturizer.load(str(tmp_path / "url")).spec.weights == "https://x.org/w.h5"


def test_a_model_is_a_function_of_sql_and_preprocessing_stays_in_floats(
    network: str, frame: DataFrame, images: list[NDArray[np.uint8] | None]
) -> None:
    """Halves survive: nothing is rounded to bytes on the way."""
    import keras

    spark = frame.sparkSession
    frame.createOrReplaceTempView("shots")
    register_keras_image_udf(spark, "embed", network)
    register_keras_image_udf(
        spark, "embed_half", keras.saving.load_model(network), preprocessor=lambda rgb: rgb / 2
    )
    rows = spark.sql(
        "SELECT embed(image) AS whole, embed_half(image) AS half FROM shots WHERE id = 1"
    ).collect()
    assert images[1] is not None
    model = keras.saving.load_model(network)
    rgb = images[1][None, :, :, ::-1].astype(np.float32)
    np.testing.assert_allclose(rows[0].whole, model.predict(rgb, verbose=0).ravel(), atol=1e-5)
    np.testing.assert_allclose(rows[0].half, model.predict(rgb / 2, verbose=0).ravel(), atol=1e-5)
    with pytest.raises(SpecError, match="no name of a function"):
        register_keras_image_udf(spark, "my-model", network)


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("embed(1)", "int32"),
        ("embed(image, 2)", "2 arguments"),
        ("embed__error(struct(1 AS a))", "struct<a: int32"),
    ],
)
def test_a_call_without_an_image_says_what_is_wanted(
    call: str, given: str, network: str, frame: DataFrame
) -> None:
    """In the last line of what Spark says, whatever stands before it."""
    frame.createOrReplaceTempView("shots")
    register_keras_image_udf(frame.sparkSession, "embed", network)
    with pytest.raises(PythonException) as caught:
        frame.sparkSession.sql(f"SELECT {call} FROM shots").collect()
    last = str(caught.value).strip().splitlines()[-1]
    name = call.partition("(")[0]
    assert last.startswith(
        f"ml_platform.errors.SpecError: {name}(image) takes one image struct (origin, height"
    )
    assert last.split("; it was given ")[1].startswith(given)


def test_a_function_of_sql_stays_the_network_that_it_was(
    network: str, frame: DataFrame, tmp_path: Path
) -> None:
    """Another network in its file changes nothing until it is registered; SQL tells which one answers."""
    import keras

    spark = frame.sparkSession
    frame.createOrReplaceTempView("shots")
    file = tmp_path / "net.keras"
    file.write_bytes(Path(network).read_bytes())
    query = "SELECT kept(image) AS vector, kept__digest() AS digest FROM shots WHERE id < 3 ORDER BY id"
    first = register_keras_image_udf(spark, "kept", str(file))
    before = spark.sql(query).collect()
    assert {row.digest for row in before} == {first.digest}

    model = keras.saving.load_model(network)
    model.get_layer("late").set_weights([2 * weight + 1 for weight in model.get_layer("late").get_weights()])
    model.save(file)
    assert spark.sql(query).collect() == before
    second = register_keras_image_udf(spark, "kept", str(file))
    after = spark.sql(query).collect()
    assert {row.digest for row in after} == {second.digest} != {first.digest}
    assert after[0].vector != before[0].vector


@pytest.mark.parametrize("fault", ["preprocessor", "shape", "struct"])
def test_what_a_function_of_sql_refuses_is_null_and_has_its_reason(
    fault: str, network: str, frame: DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    """The other images have their vectors; the log says how many were refused, and where the reasons are."""
    from pyspark.sql import functions as F  # noqa: N812

    def shy(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if rgb.sum() % 2:
            return rgb
        if fault == "shape":
            return rgb[:7]
        raise ValueError("I do not like this image")

    spark = frame.sparkSession
    cut = F.when(F.col("id") % 2 == 0, F.col("image").withField("height", F.lit(7))).otherwise(F.col("image"))
    shots = frame.withColumn("image", cut) if fault == "struct" else frame
    shots.createOrReplaceTempView("strange")
    register_keras_image_udf(spark, "picky", network, None if fault == "struct" else shy)
    rows = spark.sql("SELECT id, picky(image) AS vector, picky__error(image) AS why FROM strange").collect()
    assert {row.why for row in rows if row.id % 9 == 4} == {"no image (null)"}
    asked = [row for row in rows if row.id % 9 != 4]
    refused = {row.why for row in asked if row.vector is None}
    said = {
        "preprocessor": "I do not like this image",
        "shape": "the preprocessor gives images of another shape",
        "struct": "an image of 5760 values",
    }
    assert all(said[fault] in str(why) for why in refused)
    assert all((row.vector is None) == (row.why is not None) for row in asked)
    assert 0 < sum(row.vector is None for row in asked) < len(asked)
    assert {len(row.vector) for row in asked if row.vector} == {6 * 9 * 11}
    assert any("images have no vector; picky__error(image) says why" in line for line in caplog.messages)


def test_a_network_gets_many_small_images_at_once_and_no_more_than_there_are() -> None:
    """Few large ones bound the memory; nothing is padded, so that a single image costs what it costs."""
    assert [batch_images(Features(size=(side, side), layers={})) for side in (16, 96, 128, 299)] == [
        128,
        128,
        64,
        32,
    ]
    shapes = []

    class Sums:
        def __init__(self, batch: np.ndarray) -> None:
            shapes.append(len(batch))
            self.found = batch.sum(axis=(1, 2))

        def numpy(self) -> np.ndarray:
            return self.found

    images = [np.full((16, 16, 3), at, np.uint8) for at in range(130)]
    rows = np.concatenate(list(forward(Sums, iter(images), Features(size=(16, 16), layers={}))))
    assert shapes == [128, 2]
    np.testing.assert_array_equal(rows[:, 0], np.arange(130) * 256)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (BackboneSpec(name="mine.keras"), "there is no file mine.keras"),
        (BackboneSpec(name="ResNet50", weights="mine.weights.h5"), "no file mine.weights.h5"),
    ],
)
def test_a_file_that_is_not_there_is_found_before_any_image_is_read(spec: BackboneSpec, said: str) -> None:
    with pytest.raises(DataError, match=said):
        check_backbone(spec)


@pytest.mark.parametrize("weights", ["imagenet", "none", "https://127.0.0.1/w.h5"])
def test_what_is_no_file_is_not_looked_for(weights: str) -> None:
    check_backbone(BackboneSpec(name="ResNet50", weights=weights))
    check_backbone(BackboneSpec(name="pixels", weights=weights))
