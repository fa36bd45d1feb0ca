"""Retrain: train some families, let the best one challenge the champion, score with the winner."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

from cyclopts import Parameter

from ml_platform import (
    FeatureSpec,
    GateSpec,
    Horovod,
    KerasSpec,
    MLlibSpec,
    ReadingSpec,
    SklearnSpec,
    Spark,
    SplitSpec,
    XGBoostSpec,
    dag,
)
from ml_platform.data.schema_file import read_schema
from ml_platform.features.treatments import beside_split
from ml_platform.specs.problems import AskedProblem
from ml_platform.specs.references import Family
from tasks.data import apply_features, check_retrain, find_problem, fit_features, load_table, split_table
from tasks.evaluate import (
    choose_challenger,
    explain_model,
    find_champion,
    judge,
    measure_champion,
    measure_model,
    promote,
    write_card,
)
from tasks.report import RetrainReport, report_retrain
from tasks.score import score_table
from tasks.train import train_keras, train_mllib, train_sklearn, train_xgboost


@dag(preflight=check_retrain)
def retrain(
    source: str = "sklearn:digits",
    label: str = "label",
    reading: ReadingSpec = ReadingSpec(),
    schema_file: Annotated[str | None, Parameter(name="--schema")] = None,
    problem: AskedProblem = "auto",
    model: str | None = None,
    split: SplitSpec = SplitSpec(),
    features: FeatureSpec = FeatureSpec(),
    families: Annotated[tuple[Family, ...], Parameter(consume_multiple=True)] = ("keras", "xgboost"),
    keras: KerasSpec = KerasSpec(),
    xgboost: XGBoostSpec = XGBoostSpec(),
    sklearn: SklearnSpec = SklearnSpec(),
    mllib: MLlibSpec = MLlibSpec(),
    gate: GateSpec = GateSpec(),
    slices: tuple[str, ...] = (),
    require_promotion: bool = False,
    score: str | None = None,
    score_reading: ReadingSpec = ReadingSpec(),
    predictions: str | None = None,
    day: str | None = None,
) -> RetrainReport:
    """Train Keras on Horovod ranks, XGBoost on Spark, and others if asked; promote the best, score a table.

    Args:
        source: Table to learn from: a CSV, JSON lines, Parquet or ORC file, a folder of such files, or
            sklearn:NAME.
        label: Column to predict.
        reading: How the source is written, where its files do not say so themselves.
        schema_file: File that says what columns are; `python -m ml_platform contract infer` writes one.
        problem: auto, binary, multiclass or regression. auto: a label of numbers with fractions, or of very
            many different numbers, is regression.
        model: Name in the model registry. Empty: named after the source.
        split: How rows are dealt into train, validation and holdout.
        features: How raw columns become features.
        families: What is trained; the best of them on validation is the challenger.
        keras: The network.
        xgboost: The trees.
        sklearn: The estimator of scikit-learn, trained in one process.
        mllib: The Pipeline of MLlib, trained on Spark.
        gate: When a challenger replaces the champion.
        slices: Columns by whose values the challenger is measured once more; numbers are cut at quartiles.
        require_promotion: End with exit code 4 where the gate does not promote the challenger. Without it, a
            hold is a result like another.
        score: Table to score with the champion. Empty: the source itself.
        score_reading: How that table is written, where its files do not say so themselves.
        predictions: Folder for the predictions. Empty: .ml-platform/predictions/<model>.
        day: Add the predictions to the folder as the partition scored_on=DAY, a date, in place of
            those of the same day. Empty: they replace what the folder holds.
    """
    name = model or PurePath(source.removeprefix("sklearn:")).name.split(".")[0]
    table = load_table(source, label, read_schema(schema_file), reading)
    found = find_problem(table, problem)
    parts = split_table(table.data, split, found)
    state = fit_features(parts.train, beside_split(features, split, label), found)
    train, validation = apply_features(parts.train, state), apply_features(parts.validation, state)

    learnt = (train, validation, state, parts, split)
    models = []
    if "keras" in families:
        models.append(train_keras(*learnt, keras, job=Horovod(ranks=keras.ranks, max_restarts=1)))
    if "xgboost" in families:
        models.append(train_xgboost(*learnt, xgboost, spark=Spark(slots=xgboost.workers)))
    if "sklearn" in families:
        models.append(train_sklearn(*learnt, sklearn))
    if "mllib" in families:
        models.append(train_mllib(*learnt, mllib))

    candidates = [measure_model(each, parts.validation, "validation") for each in models]
    best = choose_challenger(candidates, gate)
    challenger = measure_model(best, parts.holdout, "holdout", slices)
    champion = find_champion(name, best)
    champion_on_holdout = measure_champion(champion, parts.holdout)

    verdict = judge(challenger, champion, champion_on_holdout, parts.holdout, state, split, gate, name)
    leans_on = explain_model(challenger, parts.holdout)
    card = write_card(
        name, table, found, parts, split, state, candidates, challenger, verdict, importance=leans_on
    )
    winner = promote(challenger, verdict, champion, name, card)
    scored = score_table(winner, table.data, score, split.key_columns, predictions, day, score_reading)
    return report_retrain(
        table,
        found,
        candidates,
        challenger,
        champion_on_holdout,
        verdict,
        winner,
        scored,
        parts,
        split,
        state,
        require_promotion=require_promotion,
    )


if __name__ == "__main__":
    retrain.cli()
