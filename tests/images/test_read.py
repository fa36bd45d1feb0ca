"""Images in Spark: the struct that Spark itself gives, and an error per row instead of a failed job."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tasks.images
from ml_platform.errors import DataError, SpecError, StoreError
from ml_platform.images import load
from ml_platform.images.decode import decode
from ml_platform.images.load import image_frame, load_images
from ml_platform.images.read import decode_column, read_files, read_images
from ml_platform.images.schema import image_pixels
from ml_platform.specs.images import ImageSpec
from ml_platform.store.datasets import write_dataset
from ml_platform.store.manifest import read_table
from tests.images.pictures import BAD, encoded, gradient, unreadable

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of two classes."""
    root = tmp_path_factory.mktemp("images")
    for at in range(40):
        path = root / ("kitten #1" if at % 2 else "grün") / f"{at:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(gradient(12, 9, seed=at)))
    return root


def test_the_struct_is_the_one_of_spark(spark: SparkSession, folder: Path) -> None:
    ours = read_images(spark, str(folder))
    theirs = spark.read.format("image").option("recursiveFileLookup", value=True).load(str(folder))
    assert ours.schema["image"].dataType.simpleString() == theirs.schema["image"].dataType.simpleString()
    by_name = {row.image.origin.rpartition("/")[2]: row.image.asDict() for row in theirs.collect()}
    rows = ours.collect()
    assert len(rows) == 40
    for row in rows:
        assert row.error is None
        expected = {**by_name[row.path.rpartition("/")[2]], "origin": f"file://{folder}/{row.path}"}
        assert row.image.asDict() == expected
        assert row.label == row.path.partition("/")[0]
        assert row.digest == hashlib.sha256((folder / row.path).read_bytes()).hexdigest()


def test_grey_images_and_alpha_are_those_of_spark_too(spark: SparkSession, tmp_path: Path) -> None:
    """Left as they are: one channel, and four."""
    alpha = np.dstack([gradient(), gradient()[:, ::-1, 0]])
    for name, pixels in {"grey": gradient()[:, :, 1], "alpha": alpha, "colour": gradient()}.items():
        (tmp_path / f"{name}.png").write_bytes(encoded(pixels))
    theirs = spark.read.format("image").load(str(tmp_path)).collect()
    expected = {row.image.origin.rpartition("/")[2]: row.image.asDict() for row in theirs}
    rows = read_images(spark, str(tmp_path), ImageSpec(channels=None)).collect()
    found = {row.path: {**row.image.asDict(), "origin": expected[row.path]["origin"]} for row in rows}
    assert found == expected
    channels = {name: image["nChannels"] for name, image in found.items()}
    assert channels == {"grey.png": 1, "alpha.png": 4, "colour.png": 3}


def test_bytes_and_uris_of_a_table(spark: SparkSession, folder: Path) -> None:
    good, path = encoded(gradient(), "JPEG"), folder / "grün" / "00.png"
    rows = [(1, bytearray(good), str(path)), (2, None, None), (3, bytearray(b"no"), str(path) + "x")]
    frame = spark.createDataFrame(rows, "id int, content binary, uri string")
    spec = ImageSpec(size=(6, 8))
    found = {row.id: row for row in decode_column(frame, "content", spec).collect()}
    np.testing.assert_array_equal(image_pixels(found[1].image.asDict()), decode(good, spec))
    assert [found[at].error for at in (1, 2)] == [None, "null"]
    assert found[3].error.startswith("not an image")
    assert found[3].image is None
    named = {row.id: row for row in decode_column(frame, "uri", spec).collect()}
    assert named[1].image.origin == str(path)
    assert [named[1].error, named[2].error] == [None, "null"]
    assert "FileNotFoundError" in named[3].error
    with pytest.raises(SpecError, match="no column 'contents'"):
        decode_column(frame, "contents", spec)
    with pytest.raises(DataError, match="holds no images"):
        decode_column(frame, "id", spec)
    with pytest.raises(SpecError, match="column 'error' already"):
        decode_column(frame.withColumnRenamed("id", "error"), "content", spec)


def test_a_file_that_is_not_read_says_why(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(b"x" * 11)
    (tmp_path / "small.png").write_bytes(b"x" * 10)
    (tmp_path / "gone.png").write_bytes(b"x")
    files = read_files(spark, str(tmp_path), most_bytes=10)
    (tmp_path / "gone.png").unlink()
    rows = {row.path: row for row in files.collect()}
    assert (rows["gone.png"].content, "FileNotFoundError" in rows["gone.png"].unread) == (None, True)
    assert (bytes(rows["small.png"].content), rows["small.png"].unread) == (b"x" * 10, None)
    assert rows["large.png"].content is None
    assert "a file of 11 bytes is too large" in rows["large.png"].unread


def test_images_in_the_store_are_those_on_disk_and_the_rest_says_why(
    spark: SparkSession, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is bad is read twice, to say why; the others once."""
    read: list[int] = []
    listed = load.listed
    monkeypatch.setattr(load, "listed", lambda spark, files: read.append(len(files)) or listed(spark, files))
    whole = load_images(spark, str(folder))
    assert whole.quarantined == 0
    assert whole.data.rows == 40
    assert whole.data.contract.label == "label"
    first = read_table(whole.data).to_pylist()[0]
    assert first["content"] == (folder / first["path"]).read_bytes()
    assert (first["height"], first["width"]) == (12, 9)
    for row in image_frame(spark, whole.data).where("label = 'grün'").limit(3).collect():
        expected = decode((folder / row.path).read_bytes())
        np.testing.assert_array_equal(image_pixels(row.image.asDict()), expected)

    for number in range(3):
        for path in folder.glob("*/*.png"):
            copy = tmp_path / f"{number}{path.parent.name}" / path.name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    for name, (content, _) in BAD.items():
        (tmp_path / name).write_bytes(content)
    table = load_images(spark, str(tmp_path))
    assert (table.data.rows, table.quarantined) == (120, len(BAD))
    assert table.quarantine is not None
    errors = {row["path"]: row["error"] for row in read_table(table.quarantine).to_pylist()}
    assert errors.keys() == BAD.keys()
    assert all(message in errors[name] for name, (_, message) in BAD.items())
    assert read == [40, 120 + len(BAD), len(BAD)]


def test_the_loading_task_sets_aside_what_nobody_can_read(
    spark: SparkSession, folder: Path, tmp_path: Path
) -> None:
    """Its probe opens every file before: what it cannot open stops no run."""
    shutil.copytree(folder, tmp_path / "images")
    unreadable(tmp_path / "images" / "grün")
    assert len(tasks.images.probe_images(str(tmp_path / "images"))) == 64
    table = tasks.images.load_images.function(str(tmp_path / "images"), ImageSpec(), spark)
    assert table.quarantine is not None
    errors = {row["path"]: row["error"] for row in read_table(table.quarantine).to_pylist()}
    assert errors.keys() == {"grün/locked.png", "grün/gone.png"}
    assert "PermissionError" in errors["grün/locked.png"]
    assert "FileNotFoundError" in errors["grün/gone.png"]


def test_too_many_that_are_no_images_are_refused_with_the_reasons(
    spark: SparkSession, tmp_path: Path
) -> None:
    for name, (content, _) in BAD.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="too many files are no images") as caught:
        load_images(spark, str(tmp_path))
    assert caught.value.evidence is not None
    assert "empty.jpg: empty file" in caught.value.evidence


def test_a_quarantine_that_cannot_be_written_leaves_nothing(
    spark: SparkSession, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images that were written before it belong to nobody."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    for path in folder.rglob("*.png"):
        copy = tmp_path / "images" / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")

    def refuse_quarantine(*arguments: Any, name: str, **options: Any) -> Any:
        if name == "quarantine":
            raise StoreError("the disk is full")
        return write_dataset(*arguments, name=name, **options)

    monkeypatch.setattr(load, "write_dataset", refuse_quarantine)
    with pytest.raises(StoreError, match="the disk is full"):
        load_images(spark, str(tmp_path / "images"))
    assert not list((tmp_path / "home").rglob("*.parquet"))
