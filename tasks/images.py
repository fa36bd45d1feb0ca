"""Load images, turn them into features, and show what a model makes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger
from pydantic import Field, JsonValue
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ml_platform import (
    BackboneSpec,
    Dataset,
    Evaluation,
    ImageSpec,
    ImageState,
    Predictions,
    Spark,
    SplitSpec,
    Table,
    Tracking,
    Version,
    register_model_udf,
    task,
)
from ml_platform.errors import SpecError, one_line
from ml_platform.images import features, load
from ml_platform.images.backbone import backbone_identity, check_backbone
from ml_platform.images.files import images_identity, list_images
from ml_platform.images.mistakes import SHOWN, draw_mistakes, worst_mistakes
from ml_platform.images.parts import image_parts
from ml_platform.images.read import files_frame, read_files
from ml_platform.images.samples import image_folder
from ml_platform.inference.destination import check_destination
from ml_platform.inference.score import score_table
from ml_platform.inference.sql import answer_type
from ml_platform.specs.tracking import TrackingRun
from ml_platform.store.location import home
from ml_platform.tracking.fetching import fetch
from tasks.report import RetrainReport

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def check_training(trainers: tuple[str, ...], backbone: BackboneSpec) -> None:
    """Refuse, before anything starts, a run that would train nothing, and a backbone that is not there."""
    if not trainers:
        raise SpecError("nothing would be trained", wanted="one trainer at least", hint="--trainers xgboost")
    check_backbone(backbone)


def check_images(source: str) -> None:
    """Before anything starts: are there files?"""
    list_images(image_folder(source))


def probe_images(source: str) -> str:
    """The files' names and contents decide, not where they lie."""
    return images_identity(image_folder(source))


@task(preflight=check_images, probe=probe_images)
def load_images(source: str, spec: ImageSpec = ImageSpec(), spark: SparkSession = Spark()) -> Table:
    """Read images into the store, in folders named after their classes; what is none goes to quarantine."""
    return load.load_images(spark, image_folder(source), spec)


def by_content(split: SplitSpec) -> SplitSpec:
    """Copies of one image lie in the same part, unless the split says otherwise."""
    given = split.group or split.key_columns
    return split if given else split.model_copy(update={"key_columns": ("digest",)})


def probe_backbone(spec: BackboneSpec) -> dict[str, str]:
    """Local files count by their content."""
    return backbone_identity(spec)


@task(preflight=check_backbone, probe=probe_backbone)
def fit_images(train: Dataset, spec: BackboneSpec) -> ImageState:
    """The classes of the training part, and the network that turns images into features."""
    return features.fit_images(train, spec)


@task
def as_pixels(state: ImageState) -> ImageState:
    """The same images as pixels of the size that the backbone takes: what a network is tuned on."""
    return features.as_pixels(state)


@task
def apply_images(part: Dataset, state: ImageState, spark: SparkSession = Spark()) -> Dataset:
    """Encoded images to packed float32 features and class indices."""
    return features.apply_images(spark, part, state)


@task
def show_mistakes(
    evaluation: Evaluation, part: Dataset, spark: SparkSession = Spark(), run: TrackingRun = Tracking()
) -> int:
    """A picture of the images that the model was most wrong about, on its own run. Returns how many."""
    mistakes = worst_mistakes(spark, evaluation, part)
    model = evaluation.model
    count = f"the {SHOWN} worst mistakes" if len(mistakes) == SHOWN else f"mistakes: {len(mistakes)}"
    title = f"{model.family} on {evaluation.part}, {count}, the surest first"
    run.at(model.run_id).log_figure(draw_mistakes(mistakes, title), f"mistakes_{evaluation.part}.png")
    return len(mistakes)


def check_image_scoring(source: str, destination: str | None) -> None:
    """Before anything starts: are there files, and can the result be written?"""
    check_images(source)
    if destination is not None:
        check_destination(destination)


def probe_image_scoring(source: str, destination: str | None) -> dict[str, str]:
    """What scoring sees besides its arguments: the files' contents, and where results go by default."""
    return {"source": probe_images(source), "folder": destination or str(home() / "predictions")}


@task(preflight=check_image_scoring, probe=probe_image_scoring)
def score_images(
    version: Version | None, source: str, destination: str | None, spark: SparkSession = Spark()
) -> Predictions | None:
    """A prediction beside the path of every file, or an error, as Parquet that appears whole or not at all.

    Written in parts: those of which no file has changed since an earlier scoring are taken over from it.

    Args:
        version: The model. None, when no model has ever passed the gate, scores nothing.
        source: Images: a folder, a glob, a file or a URI.
        destination: Folder to write. Empty: `predictions/<model>` beside the platform's other files.
    """
    if version is None:
        return None
    return score_table(
        spark,
        fetch(version),
        version,
        files_frame(spark, []),
        keys=("path",),
        destination=destination or str(home() / "predictions" / version.name),
        parts=image_parts(list_images(image_folder(source))),
        unread="unread",
        tell=get_run_logger().info,
    )


FUNCTION, VIEW = "classify", "images"
QUERY = " ".join(
    (
        "SELECT label, answer.prediction, count(*) AS images, round(avg(answer.probability), 3) AS chance",
        f"FROM (SELECT label, {FUNCTION}(content) AS answer FROM (SELECT * FROM {VIEW} LIMIT 200))",
        "GROUP BY ALL ORDER BY label, images DESC",
    )
)
MOST_ROWS = 100
"""Of an answer."""
SHOWN_ROWS = 20
"""In the terminal."""


def probe_query(source: str) -> str:
    """The query sees the files' contents."""
    return probe_images(source)


@task
def check_query(query: str, spark: SparkSession = Spark()) -> str:
    """The query, once Spark has understood it: before hours of training, not after.

    Raises:
        SpecError: Spark cannot.
    """
    from pyspark.sql.functions import udf

    spark.udf.register(FUNCTION, udf(lambda content: None, answer_type(has_classes=True)))
    files_frame(spark, []).createOrReplaceTempView(VIEW)
    _asked(spark, query)
    return query


@task(preflight=check_images, probe=probe_query)
def query_images(
    version: Version | None, source: str, query: str, spark: SparkSession = Spark()
) -> list[dict[str, JsonValue]]:
    """What a query says in which the model is a function: a line per row, 100 at most.

    Args:
        version: The model. None, when no model has ever passed the gate, is asked nothing.
        source: Images; the query finds them as `images`: `path`, `label`, `content`, `unread`.
        query: SQL. `classify(content)` gives what scoring gives: prediction, probability, error, …
    """
    if version is None:
        return []
    register_model_udf(spark, FUNCTION, version.uri)
    read_files(spark, image_folder(source)).createOrReplaceTempView(VIEW)
    answer = _asked(spark, query)
    empty = dict.fromkeys(answer.columns)  # JSON leaves nulls out
    return [{**empty, **json.loads(row)} for row in answer.limit(MOST_ROWS).toJSON().collect()]


def _asked(spark: SparkSession, query: str) -> DataFrame:
    from pyspark.errors import AnalysisException, ParseException

    try:
        return spark.sql(query)
    except (AnalysisException, ParseException) as error:
        hint = f"the view is {VIEW} (path, label, content, unread), the function {FUNCTION}(content)"
        raise SpecError("the query cannot be asked", got=one_line(error), hint=hint) from error


class ImageReport(RetrainReport):
    """The result of `flows.image_classification`."""

    answer: tuple[dict[str, JsonValue], ...] = Field((), description="What SQL said with the champion.")

    def __rich__(self) -> RenderableType:
        if not self.answer:
            return super().__rich__()
        table = RichTable(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for name in self.answer[0]:
            table.add_column(name)
        for row in self.answer[:SHOWN_ROWS]:
            table.add_row(*(Text(str(value)) for value in row.values()))
        more = len(self.answer) - SHOWN_ROWS
        return Group(
            super().__rich__(), Text(""), table, *([Text(f"… {more} rows more")] if more > 0 else [])
        )


@task(whole=["report"])
def report_images(
    report: RetrainReport, answer: list[dict[str, JsonValue]], run: TrackingRun = Tracking()
) -> ImageReport:
    """Add what SQL said; left in Prefect and MLflow."""
    if answer:
        run.log_table({name: [row.get(name) for row in answer] for name in answer[0]}, "sql.json")
        create_table_artifact(answer, key="sql-answer", description="SQL with the champion as a function.")
    return ImageReport(**dict(report), answer=tuple(answer))
