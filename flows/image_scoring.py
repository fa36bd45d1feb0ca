"""Image scoring: a registered model on every image of a folder, on Spark."""

from __future__ import annotations

from ml_platform import dag
from tasks.images import score_images
from tasks.report import ScoringReport, report_scoring
from tasks.score import find_version


@dag
def image_scoring(
    model: str = "models:/digits-images@champion",
    source: str = "sklearn:digits",
    predictions: str | None = None,
) -> ScoringReport:
    """Score images with a registered model and write Parquet: a line per file.

    Args:
        model: Registered model: models:/NAME@champion or models:/NAME/VERSION.
        source: Images: a folder, a glob, a file or a URI.
        predictions: Folder for the predictions. Empty: .ml-platform/predictions/<model>.
    """
    version = find_version(model)
    return report_scoring(score_images(version, source, predictions))


if __name__ == "__main__":
    image_scoring.cli()
