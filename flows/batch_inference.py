"""Batch inference: score a table with a registered model, on Spark."""

from __future__ import annotations

from ml_platform import ReadingSpec, dag
from tasks.report import ScoringReport, report_scoring
from tasks.score import check_batch, find_version, score_table


@dag(preflight=check_batch)
def batch_inference(
    model: str = "models:/digits@champion",
    source: str = "sklearn:digits",
    reading: ReadingSpec = ReadingSpec(),
    keys: tuple[str, ...] = (),
    predictions: str | None = None,
    day: str | None = None,
) -> ScoringReport:
    """Score a table with a registered model and write Parquet.

    Args:
        model: Registered model: models:/NAME@champion or models:/NAME/VERSION.
        source: Table to score: a CSV, JSON lines, Parquet or ORC file, a folder of the latter two, or
            sklearn:NAME.
        reading: How the table is written, where its files do not say so themselves.
        keys: Columns to keep beside the predictions. Empty: all.
        predictions: Folder for the predictions. Empty: .ml-platform/predictions/<model>.
        day: Add the predictions to the folder as the partition scored_on=DAY, a date, in place of
            those of the same day. Empty: they replace what the folder holds.
    """
    version = find_version(model)
    scored = score_table(version, None, source, keys, predictions, day, reading)
    return report_scoring(version, scored)


if __name__ == "__main__":
    batch_inference.cli()
