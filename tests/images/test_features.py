"""Images as features: fitted once, applied on Spark and inside a model alike."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.errors import DataError
from ml_platform.evaluation.measure import measure
from ml_platform.images.features import apply_images, fit_images
from ml_platform.images.files import list_images
from ml_platform.images.load import load_images
from ml_platform.images.mistakes import SHOWN, worst_mistakes
from ml_platform.images.parts import ImagePart, image_parts
from ml_platform.images.read import files_frame
from ml_platform.images.samples import image_folder
from ml_platform.inference.progress import progress
from ml_platform.inference.raw_model import load_raw_model, write_raw_model
from ml_platform.inference.score import predict_rows, score_table
from ml_platform.specs.images import BackboneSpec, ImageState
from ml_platform.specs.references import Dataset, Version
from ml_platform.specs.tables import SplitSpec
from ml_platform.store.folders import local_path
from ml_platform.store.manifest import read_table
from tests.images.pictures import BAD, encoded, gradient
from tests.inference.builders import reference

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.horovod]


@pytest.fixture(scope="module")
def images(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """70 images of two classes and of many sizes: light ones and dark ones."""
    root = tmp_path_factory.mktemp("shades")
    for at in range(70):
        path = root / ("dark", "light")[at % 2] / f"{at:02}.png"
        path.parent.mkdir(exist_ok=True)
        shade = gradient(8 + at, 60 - at // 2, seed=at) // 2 + (at % 2) * 127
        path.write_bytes(encoded(shade))
    return load_images(spark, str(root)).data


@pytest.fixture(scope="module")
def state(images: Dataset) -> ImageState:
    return fit_images(images, BackboneSpec(size=(6, 5)))


@pytest.fixture(scope="module")
def folder(images: Dataset, state: ImageState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw model: a network over the features, with the backbone beside it."""
    import keras

    keras.utils.set_random_seed(1)
    head = keras.Sequential([keras.Input((state.width,)), keras.layers.Dense(2, activation="softmax")])
    scratch = tmp_path_factory.mktemp("model")
    head.save(scratch / "head.keras")
    return write_raw_model(
        scratch / "raw",
        family="keras",
        model_file=scratch / "head.keras",
        state=state,
        split=SplitSpec(),
        contract=images.contract,
        lineage={},
    )


def test_a_state_knows_classes_and_width(state: ImageState) -> None:
    assert state.classes == ("dark", "light")
    assert state.class_counts == (35, 35)
    assert state.width == 6 * 5 * 3 == len(state.feature_names)
    assert state.columns == ("content",)
    assert local_path(state.backbone).is_file()


def test_the_model_scores_files_as_it_was_trained_on_them(
    spark: SparkSession, images: Dataset, state: ImageState, folder: Path
) -> None:
    """Features on Spark, then the network alone; or the model on the files themselves."""
    import keras

    applied = read_table(apply_images(spark, images, state))
    packed = applied["features"].combine_chunks()
    features = np.frombuffer(packed.buffers()[1], np.float32).reshape(len(packed), state.width)
    head = keras.saving.load_model(folder / "model.keras")
    expected = sorted(head.predict(features, verbose=0)[:, 1].tolist())

    model = load_raw_model(folder)
    assert model.contract.names == ("content",)
    table = read_table(images)
    np.testing.assert_allclose(sorted(model.predict(table)[:, 1].tolist()), expected, atol=1e-5)
    assert model.predict(table.slice(0, 0)).shape == (0, 2)


def test_a_bad_file_is_the_error_of_its_row_alone(images: Dataset, folder: Path) -> None:
    model = load_raw_model(folder)
    good = read_table(images).column("content").to_pylist()[:5]
    contents = [good[0], None, *(content for content, _ in BAD.values()), *good[1:]]
    batch = pa.record_batch([pa.array(contents, pa.binary())], names=["content"])
    probabilities, errors = predict_rows(model, batch)
    assert [error is None for error in errors] == [content in good for content in contents]
    assert errors[1] == "no image (null)"
    assert all(message in str(error) for (_, message), error in zip(BAD.values(), errors[2:], strict=False))
    alone = model.predict(pa.table({"content": good}))
    np.testing.assert_allclose(probabilities[[error is None for error in errors]], alone, atol=1e-6)


@pytest.fixture(scope="module")
def version(images: Dataset, folder: Path) -> Version:
    model = reference(folder, images.contract, ("dark", "light"), family="keras")
    return Version(name="shades", version=3, model=model)


def test_only_images_that_changed_are_scored_again(
    spark: SparkSession, folder: Path, version: Version, tmp_path: Path
) -> None:
    """Nothing, an image more, another in its place, one that cannot be read; another version, all of them."""
    shots = tmp_path / "shots #1 é"
    (shots / "a").mkdir(parents=True)
    for at in range(90):
        (shots / "a" / f"{at:02}.png").write_bytes(encoded(gradient(seed=at)))

    def scored(number: int = 3) -> tuple[dict[str, dict[str, Any]], int, set[int]]:
        got = score_table(
            spark,
            folder,
            version.model_copy(update={"version": number}),
            files_frame(spark, []),
            keys=("path",),
            destination=str(tmp_path / "scores"),
            parts=image_parts(list_images(str(shots)), most_files=16),
            unread="unread",
        )
        rows = {row["path"]: row for row in pq.read_table(tmp_path / "scores").to_pylist()}
        assert got.rows == len(rows) == len(list_images(str(shots)))
        return rows, got.reused_rows, {path.stat().st_ino for path in (tmp_path / "scores").glob("part-*")}

    rows, reused, first = scored()
    contents = pa.table({"content": [(shots / path).read_bytes() for path in rows]})
    expected = load_raw_model(folder).predict(contents).max(axis=1)
    np.testing.assert_allclose([row["probability"] for row in rows.values()], expected, atol=1e-5)
    assert reused == 0
    assert scored()[1:] == (90, first)

    (shots / "a" / "more.png").write_bytes(encoded(gradient(seed=90)))
    _, reused, second = scored()
    assert 90 - 16 <= reused < 90
    assert len(first - second) == 1
    (shots / "a" / "more.png").write_bytes(encoded(255 - gradient(seed=90)))
    _, reused, third = scored()
    assert 91 - 16 <= reused < 91
    assert (len(second - third), len(third - second)) == (1, 1)
    (shots / "a" / "more.png").unlink()
    (shots / "a" / "more.png").symlink_to("nowhere")
    rows, reused, _ = scored()
    assert 91 - 16 <= reused < 91
    assert [path for path, row in rows.items() if row["error"]] == ["a/more.png"]
    assert scored(number=4)[1] == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@dataclass(frozen=True)
class Waiting:
    """A part that is not there before somebody writes into a pipe."""

    part: ImagePart
    pipe: str
    identity: str = "the last"

    def read(self, schema: pa.Schema) -> tuple[str, Iterator[pa.RecordBatch]]:
        Path(self.pipe).read_bytes()
        return self.part.read(schema)


def test_progress_is_told_while_images_are_scored(
    spark: SparkSession, folder: Path, version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many parts of how many; the last one waits until something was said."""
    monkeypatch.setattr("ml_platform.inference.score.progress", partial(progress, every_s=0.01))
    (tmp_path / "shots").mkdir()
    for at in range(4):
        (tmp_path / "shots" / f"{at}.png").write_bytes(encoded(gradient(seed=at)))
    *before, last = image_parts(list_images(str(tmp_path / "shots")), most_files=1)
    os.mkfifo(tmp_path / "pipe")
    said: list[str] = []

    def tell(line: str) -> None:
        if not said:
            (tmp_path / "pipe").write_bytes(b"")
        said.append(line)

    score_table(
        spark,
        folder,
        version,
        files_frame(spark, []),
        keys=("path",),
        destination=str(tmp_path / "scores"),
        parts=[*before, Waiting(last, str(tmp_path / "pipe"))],
        unread="unread",
        tell=tell,
    )
    assert re.match(r"[123] of 4 parts are scored after ", said[0])


def test_a_backbone_that_was_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "raw"
    shutil.copytree(folder, copy)
    content = bytearray((copy / "backbone.keras").read_bytes())
    content[-1] ^= 1
    (copy / "backbone.keras").write_bytes(content)
    with pytest.raises(DataError, match="is not the file that the model was written with"):
        load_raw_model(copy)


def test_images_without_a_class_are_not_learnt_from(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for path in (tmp_path / "cat" / "1.png", tmp_path / "lost.png"):
        path.write_bytes(encoded(gradient()))
    with pytest.raises(DataError, match="images without a class") as caught:
        fit_images(load_images(spark, str(tmp_path)).data, BackboneSpec())
    assert "folder above" in str(caught.value)


def test_the_digits_are_written_once_and_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    folder = Path(image_folder("sklearn:digits"))
    assert len(list(folder.glob("*/*.png"))) == 1797
    assert sorted(path.name for path in folder.iterdir()) == [str(digit) for digit in range(10)]
    before = folder.stat().st_mtime_ns
    assert Path(image_folder("sklearn:digits")).stat().st_mtime_ns == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_surest_mistakes_come_first_with_their_images(
    spark: SparkSession, images: Dataset, folder: Path
) -> None:
    """An untrained network takes many of 70 images for something else; 25 are shown."""
    model = reference(folder, images.contract, ("dark", "light"), family="keras")
    evaluation = measure(spark, folder, model, images, "holdout")
    table = read_table(images)
    chances = load_raw_model(folder).predict(table)
    known = {}
    for row, chance in zip(table.to_pylist(), chances, strict=True):
        right = model.classes.index(row["label"])
        if chance.argmax() != right:
            predicted = model.classes[chance.argmax()]
            known[row["path"]] = (-np.log(chance[right]), row["label"], predicted, row["content"])
    assert len(known) > SHOWN
    mistakes = worst_mistakes(spark, evaluation, images)
    losses = [mistake.log_loss for mistake in mistakes]
    np.testing.assert_allclose(
        losses, sorted((loss for loss, *_ in known.values()), reverse=True)[:SHOWN], rtol=1e-4
    )
    for mistake in mistakes:
        loss, *rest = known[mistake.path]
        assert [mistake.label, mistake.predicted, mistake.content] == rest
        assert mistake.log_loss == pytest.approx(loss, rel=1e-4)
