"""Tune: search good parameters of each family, let the best model of all challenge the champion."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

from cyclopts import Parameter

from ml_platform import (
    Choice,
    FeatureSpec,
    GateSpec,
    KerasSpec,
    MLlibSpec,
    Range,
    ReadingSpec,
    SklearnSpec,
    SplitSpec,
    StudySpec,
    XGBoostSpec,
    dag,
    when,
)
from ml_platform.data.schema_file import read_schema
from ml_platform.features.treatments import beside_split
from ml_platform.specs.problems import AskedProblem
from ml_platform.specs.references import Family
from ml_platform.tuning.spaces import check_searched, read_space
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
from tasks.report import report_retrain
from tasks.score import score_table
from tasks.study import TuneReport, explain_study, report_study
from tasks.tune import FAMILIES, has_best, with_models


@dag(preflight=check_retrain)
def tune(
    source: str = "sklearn:digits",
    label: str = "label",
    reading: ReadingSpec = ReadingSpec(),
    schema_file: Annotated[str | None, Parameter(name="--schema")] = None,
    problem: AskedProblem = "auto",
    model: str | None = None,
    split: SplitSpec = SplitSpec(),
    features: FeatureSpec = FeatureSpec(),
    families: Annotated[tuple[Family, ...], Parameter(consume_multiple=True)] = ("keras", "xgboost"),
    study: StudySpec = StudySpec(),
    space: dict[str, dict[str, Range | Choice | str]] = {},  # noqa: B006  (declared, never changed)
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
) -> TuneReport:
    """Search parameters of Keras on ranks, XGBoost on Spark, and others if asked; promote the best model.

    A trial is a task: one that is done is never run again, whatever ended the study.

    Args:
        source: Table to learn from: a CSV, JSON lines, Parquet or ORC file, a folder of such files, or
            sklearn:NAME.
        label: Column to predict.
        reading: How the source is written, where its files do not say so themselves.
        schema_file: File that says what columns are; `python -m ml_platform contract infer` writes one.
        problem: auto, binary, multiclass or regression.
        model: Name in the model registry. Empty: named after the source.
        split: How rows are dealt into train, validation and holdout.
        features: How raw columns become features.
        families: What is searched; the best models of all are compared.
        study: How each family is searched, and for how long.
        space: What varies, by family and field: --space.xgboost.depth 2..8,
            --space.keras.rate "0.001..0.1 log", --space.keras.hidden "[64] | [128, 64]". A family without an
            entry has a space by default.
        keras: The network, where it is not searched.
        xgboost: The trees, where they are not searched.
        sklearn: The estimator of scikit-learn, where it is not searched.
        mllib: The Pipeline of MLlib, where it is not searched.
        gate: When a challenger replaces the champion.
        slices: Columns by whose values the challenger is measured once more.
        require_promotion: End with exit code 4 where the gate does not promote the challenger.
        score: Table to score with the champion. Empty: the source itself.
        score_reading: How that table is written, where its files do not say so themselves.
        predictions: Folder for the predictions. Empty: .ml-platform/predictions/<model>.
        day: Add the predictions to the folder as the partition scored_on=DAY, a date.
    """
    name = model or PurePath(source.removeprefix("sklearn:")).name.split(".")[0]
    table = load_table(source, label, read_schema(schema_file), reading)
    found = find_problem(table, problem)
    parts = split_table(table.data, split, found)
    state = fit_features(parts.train, beside_split(features, split, label), found)
    train, validation = apply_features(parts.train, state), apply_features(parts.validation, state)

    check_searched(space, families)
    bases = {"keras": keras, "xgboost": xgboost, "sklearn": sklearn, "mllib": mllib}
    studies, importance, measured = [], [], []
    for family in families:
        tasks, base = FAMILIES[family], bases[family]
        resource, searched = tasks.resource(base), read_space(family, space, base, study.sampler)
        asked, trials = [], []
        for number in range(1, study.trials + 1):
            # Trials side by side know nothing of each other, whoever ends first: equal studies, equal points.
            known = max(0, number - (study.parallel if tasks.side_by_side else 1))
            told = trials[:known]
            asked.append(tasks.ask(number, study, searched, base, told, asked[known:]))
            rivals = told if study.pruner != "none" else []
            trials.append(
                tasks.attempt(asked[-1], rivals, study.pruner, train, validation, state, base, **resource)
            )
        studies.append(trials)
        importance.append(explain_study(trials, searched, base))
        with when(has_best(trials)):
            best = tasks.best(trials, base)
            trained = tasks.train(train, validation, state, parts, split, best, **resource)
            measured.append(measure_model(trained, parts.validation, "validation"))

    candidates = with_models(measured, studies)
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
    report = report_retrain(
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
    return report_study(studies, importance, report)


if __name__ == "__main__":
    tune.cli()
