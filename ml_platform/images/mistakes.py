"""A picture of the images that a model was most wrong about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ml_platform.evaluation.explain import measured_rows
from ml_platform.evaluation.measure import read_rows
from ml_platform.evaluation.pictures import LONG_NAME_CHARACTERS, NAME_CHARACTERS, short
from ml_platform.images.decode import decode
from ml_platform.specs.base import Spec
from ml_platform.specs.references import Dataset, Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyspark.sql import SparkSession

SHOWN = 25
COLUMNS = 5
TILE = 256
"""Pixels of an image's longer side: as many as the picture can show."""


class Mistake(Spec):
    """One image, what it is and what the model took it for."""

    path: str
    label: str
    predicted: str
    log_loss: float
    content: bytes


def worst_mistakes(spark: SparkSession, evaluation: Evaluation, part: Dataset) -> list[Mistake]:
    """The images that were taken for something else, the surest error first; at most `SHOWN`.

    Args:
        part: The images that were measured.
    """
    import pyarrow.compute as pc

    rows = read_rows(evaluation)
    wrong = rows.filter(pc.not_equal(rows["label"], rows["predicted"])).sort_by([("log_loss", "descending")])
    worst = wrong.slice(0, SHOWN).select(["row_key", "label", "predicted", "log_loss"]).to_pylist()
    images = measured_rows(spark, part, [row["row_key"] for row in worst], ["path", "content"]).to_pylist()
    names = (*evaluation.model.classes, "nothing")  # a row that failed has the prediction -1
    return [
        Mistake(
            path=image["path"],
            label=names[row["label"]],
            predicted=names[row["predicted"]],
            log_loss=row["log_loss"],
            content=image["content"],
        )
        for row, image in zip(worst, images, strict=True)
    ]


def draw_mistakes(mistakes: Sequence[Mistake], title: str) -> Figure:
    """A grid of images with what each is, what it was taken for, and its file's name."""
    from matplotlib.figure import Figure
    from PIL import Image

    lines = max(1, -(-len(mistakes) // COLUMNS))
    figure = Figure(figsize=(2.2 * COLUMNS, 2.3 * lines + 0.6), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=11)
    cells = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for cell in cells:
        cell.set_axis_off()
    for cell, mistake in zip(cells, mistakes, strict=False):
        image = Image.fromarray(decode(mistake.content)[:, :, ::-1])
        image.thumbnail((TILE, TILE))
        cell.imshow(image)
        right, taken = (short(name, NAME_CHARACTERS) for name in (mistake.label, mistake.predicted))
        file = short(PurePosixPath(mistake.path).name, LONG_NAME_CHARACTERS)
        cell.set_title(f"{right}, taken for {taken}\n{file}", fontsize=7)
    return figure
