"""Images on disk to a champion, a folder scored, and SQL: one run, as a user types it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from ml_platform import register_model_udf
from ml_platform.tracking import find
from ml_platform.tracking.server import client
from tests.images.pictures import encoded, unreadable
from tests.scenarios.conftest import Outcome, Project

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.spark,
    pytest.mark.horovod,
    pytest.mark.timeout(600),
]

SHAPES = ("disc", "ring", "square")


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 drawings of three shapes in many places and sizes; names that no URI likes; a broken file."""
    root = tmp_path_factory.mktemp("my drawings #1")
    for at in range(240):
        shape = SHAPES[at % 3]
        picture = Image.new("RGB", (40 + at % 7, 40), (at % 50, 20, 60))
        left, top, side = 4 + at % 5, 3 + at % 4, 22 + at % 9
        box = (left, top, left + side, top + side)
        pen = ImageDraw.Draw(picture)
        if shape == "square":
            pen.rectangle(box, fill=(200, 150 + at % 90, 90))
        else:
            pen.ellipse(box, fill=(200, 150, 90) if shape == "disc" else None, outline="white", width=3)
        path = root / shape / f"nr {at:03} ü.{'jpg' if at % 2 else 'png'}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(picture, "JPEG" if at % 2 else "PNG"))
    (root / "disc" / "broken.png").write_bytes(b"not an image at all")
    (root / "disc" / "huge.png").touch()
    os.truncate(root / "disc" / "huge.png", (64 << 20) + 1)
    unreadable(root / "ring")
    return root


@pytest.fixture(scope="module")
def outcome(project: Project, drawings: Path) -> Outcome:
    small = [
        "--trainers",
        "keras",
        "xgboost",
        "fine_tune",
        "--tuning.epochs",
        "3",
        "--keras.epochs",
        "12",
        "--keras.hidden",
        "32",
        "--xgboost.trees",
        "15",
        "--gate.minimum-rows",
        "10",
    ]
    options = ["--source", str(drawings), "--model", "shapes", "--json", *small]
    return project.run("flows.image_classification", *options)


def test_images_are_learnt_and_what_is_none_is_set_aside(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.err
    report = outcome.json
    assert report["quarantined"] == 4
    assert report["verdict"]["decision"] == "promote"
    assert report["champion"]["uri"] == "models:/shapes/1"
    assert {model["family"] for model in report["models"]} == {"keras", "xgboost", "fine_tuned"}
    assert report["champion"]["metrics"]["accuracy"]["value"] > 0.9


def test_each_file_has_its_prediction(outcome: Outcome, drawings: Path) -> None:
    table = pq.read_table(Path(outcome.json["predictions"]["uri"].removeprefix("file://"))).to_pylist()
    errors = {row["path"]: row["error"] for row in table if row["error"]}
    assert "PermissionError" in errors.pop("ring/locked.png")
    assert "FileNotFoundError" in errors.pop("ring/gone.png")
    assert errors == {
        "disc/broken.png": "not an image (bytes that begin with 6e 6f 74 20 61 6e 20 69)",
        "disc/huge.png": "a file of 67,108,865 bytes is too large",
    }
    scored = [row for row in table if row["error"] is None]
    assert len(scored) == 240
    assert all((drawings / row["path"]).is_file() for row in scored)
    right = sum(row["prediction"] == row["path"].partition("/")[0] for row in scored)
    assert right > 216


def test_what_the_model_was_most_wrong_about_is_on_its_run(
    outcome: Outcome, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture, on the run of the model in MLflow."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(project.home))
    run = find("models:/shapes/1").model.run_id
    picture = client().download_artifacts(run, "mistakes_holdout.png")
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 1000


def test_the_run_ends_with_an_answer_of_sql(outcome: Outcome) -> None:
    """What is said of some of the files by class, by the version that serves."""
    answer = outcome.json["answer"]
    assert sum(row["images"] for row in answer) == 200
    said = [row for row in answer if row["prediction"] is not None]
    right = sum(row["images"] for row in said if row["label"] == row["prediction"])
    assert right > 170
    assert all(0 < row["chance"] <= 1 for row in said)


def test_the_champion_is_a_function_of_sql(
    outcome: Outcome, project: Project, drawings: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the files themselves; the version is pinned, and every row shows it."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(project.home))
    version = register_model_udf(spark, "shape", "models:/shapes@champion")
    assert version.uri == outcome.json["champion"]["uri"]
    spark.read.format("binaryFile").load(f"{drawings}/*/nr 00*").createOrReplaceTempView("drawings")
    query = """
        SELECT path, answer.* FROM (SELECT path, shape(struct(*)) AS answer FROM drawings)
        UNION ALL SELECT path, answer.* FROM (SELECT path, shape(content) AS answer FROM drawings)
    """
    rows = spark.sql(query).collect()
    assert len(rows) == 2 * 10
    assert {(row.error, row.model_name, row.model_version) for row in rows} == {(None, "shapes", 1)}
    scored = pq.read_table(Path(outcome.json["predictions"]["uri"].removeprefix("file://"))).to_pylist()
    by_path = {row["path"]: row for row in scored}
    for row in rows:
        known = by_path["/".join(row.path.rsplit("/", 2)[1:])]
        assert row.prediction == known["prediction"]
        assert row.probability == pytest.approx(known["probability"], abs=1e-5)
