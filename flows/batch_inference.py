"""Batch inference: score a table with any model, on Spark."""

from __future__ import annotations

from ml_platform import ReadingSpec, dag
from tasks.report import ScoringReport, report_scoring
from tasks.score import batch_predict, check_batch, find_model


@dag(preflight=check_batch)
def batch_inference(
    model: str = "models:/digits@champion",
    source: str = "sklearn:digits",
    reading: ReadingSpec = ReadingSpec(),
    keys: tuple[str, ...] = (),
    predictions: str | None = None,
    day: str | None = None,
    columns: tuple[str, ...] = (),
    signature: str = "serving_default",
    trust_pickle: bool = False,
) -> ScoringReport:
    """Score a table with any model and write Parquet: what was scored before is not scored again.

    Args:
        model: Registered model: models:/NAME@champion or models:/NAME/VERSION. Or runs:/RUN/NAME, a .keras
            file, a SavedModel, a .ubj or .json file of XGBoost's, a pickle, a folder of MLflow's.
        source: Table to score: a CSV, JSON lines, Parquet or ORC file, a folder of the latter two, or
            sklearn:NAME.
        reading: How the table is written, where its files do not say so themselves.
        keys: Columns to keep beside the predictions. Empty: all.
        predictions: Folder for the predictions. Empty: .ml-platform/predictions/<model>-batch.
        day: Add the predictions to the folder as the partition scored_on=DAY, a date, in place of
            those of the same day. Empty: they replace what the folder holds.
        columns: Columns that make the model's input, in its order, where it does not say so itself.
        signature: Which one of a SavedModel.
        trust_pickle: Open a model that is a pickle or holds Python code: it runs whatever its author put in.
    """
    found = find_model(model)
    scored = batch_predict(found, source, keys, predictions, day, reading, columns, signature, trust_pickle)
    return report_scoring(scored)


if __name__ == "__main__":
    batch_inference.cli()
