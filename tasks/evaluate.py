"""Measure models, choose the challenger, and let the gate decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from prefect.runtime import flow_run

from ml_platform import (
    Dataset,
    Evaluation,
    FeatureState,
    GateSpec,
    Model,
    Parts,
    Spark,
    SplitSpec,
    Table,
    Tracking,
    Verdict,
    Version,
    task,
)
from ml_platform.engine.going_on import runs_so_far
from ml_platform.evaluation import explain, gate, pictures
from ml_platform.evaluation.card import as_description, model_card
from ml_platform.evaluation.measure import measure, read_rows
from ml_platform.evaluation.metrics import primary_metric
from ml_platform.evaluation.slices import listed, slice_table
from ml_platform.inference.input_check import InputDiff, input_diff
from ml_platform.inference.raw_model import other_format, read_manifest
from ml_platform.specs.problems import Problem
from ml_platform.specs.tracking import TrackingRun
from ml_platform.store.leftovers import scratch_folder
from ml_platform.tracking import registry
from ml_platform.tracking.champions import rolled_back
from ml_platform.tracking.fetching import fetch

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession


@task
def measure_model(
    model: Model,
    part: Dataset,
    name: Literal["validation", "holdout"],
    slices: tuple[str, ...] = (),
    spark: SparkSession = Spark(),
    run: TrackingRun = Tracking(),
) -> Evaluation:
    """Score a labelled part; metrics with intervals, and pictures on the run that trained the model."""
    evaluation = measure(spark, fetch(model), model, part, name, listed(slices))
    own, rows = run.at(model.run_id), read_rows(evaluation)
    own.log_input(part, context=name)
    values = {f"{name}_{metric}": found.value for metric, found in evaluation.metrics.items()}
    if evaluation.calibration is not None:
        values[f"{name}_calibration_error"] = evaluation.calibration.error
    own.log_metrics(values, model=model, dataset=part)
    if slices:
        own.log_table(slice_table(evaluation.slices), f"slices_{name}.json")
    for picture, figure in pictures.draw_all(rows, model.classes, f"{model.family} on {name}").items():
        own.log_figure(figure, f"{picture}_{name}.png")
    return evaluation


@task
def explain_model(
    challenger: Evaluation, part: Dataset, spark: SparkSession = Spark(), run: TrackingRun = Tracking()
) -> dict[str, float]:
    """What the challenger leans on, by raw column, and the 50 rows where it is most wrong, as artifacts."""
    model = challenger.model
    own = run.at(model.run_id)
    importance = explain.permutation_importance(spark, fetch(model), part)
    title, rise = f"{model.family}: importance of columns", f"rise of {primary_metric(model.problem)}"
    own.log_figure(
        pictures.draw_importance(importance, title, measure=rise, of="column"), "importance_of_columns.png"
    )
    table = {"column": list(importance), rise: list(importance.values())}
    own.log_table(table, "importance_of_columns.json")
    _log_rows(own, explain.worst_rows(spark, model, challenger, part), f"worst_rows_{challenger.part}")
    return importance


def _log_rows(run: TrackingRun, rows: pa.Table, name: str) -> None:
    """A table as Parquet, and as CSV for people."""
    from pyarrow import parquet

    with scratch_folder() as scratch:
        file = Path(scratch) / f"{name}.parquet"
        parquet.write_table(rows, file)
        run.log_file(file)
        text = file.with_suffix(".csv")
        rows.to_pandas().to_csv(text, index=False)
        run.log_file(text)


@task
def write_card(
    name: str,
    table: Table,
    problem: Problem,
    parts: Parts,
    split: SplitSpec,
    state: FeatureState,
    candidates: list[Evaluation],
    challenger: Evaluation,
    verdict: Verdict,
    importance: dict[str, float],
    run: TrackingRun = Tracking(),
) -> str:
    """The challenger's model card, Markdown, kept with the run that trained it."""
    card = model_card(
        name=name,
        table=table,
        problem=problem,
        parts=parts,
        split=split,
        state=state,
        candidates=candidates,
        challenger=challenger,
        verdict=verdict,
        importance=importance,
    )
    run.at(challenger.model.run_id).log_text(card, "model_card.md")
    return card


@task
def choose_challenger(candidates: list[Evaluation], spec: GateSpec) -> Model:
    """The best model on validation. The holdout plays no part in the choice."""
    return gate.choose_challenger(candidates, spec.metric).model


def _champion(name: str, challenger: Model) -> Version | None:
    return registry.champion_against(challenger, name, promoted_by=runs_so_far())


@task(probe=_champion)
def find_champion(name: str, challenger: Model) -> Version | None:
    """The version that serves now, if there is one. A run that is resumed after it promoted finds the one
    that served before: the challenger is not to be judged against itself."""
    return _champion(name, challenger)


@task
def measure_champion(
    champion: Version | None, holdout: Dataset, spark: SparkSession = Spark()
) -> Evaluation | None:
    """The champion on the rows that the challenger is measured on; None when it cannot read them, or is of a
    format that nobody here reads any more."""
    if champion is None or _diff(champion, holdout) or other_format(fetch(champion)):
        return None
    return measure(spark, fetch(champion), champion.model, holdout, "holdout")


@task(probe=rolled_back)
def judge(
    challenger: Evaluation,
    champion: Version | None,
    champion_on_holdout: Evaluation | None,
    holdout: Dataset,
    state: FeatureState,
    split: SplitSpec,
    spec: GateSpec,
    name: str,
    run: TrackingRun = Tracking(),
) -> Verdict:
    """Promote, hold, reject, cannot tell or not comparable: on paired evidence of the holdout."""
    uses = registry.holdout_uses(name, challenger.data_fingerprint, challenger.model)
    if champion is not None and champion_on_holdout is None:
        return _unreadable(champion, challenger, holdout, spec, uses)
    splits = (split, read_manifest(fetch(champion)).split) if champion else None
    uri = champion.uri if champion else None
    verdict = gate.decide(
        challenger, champion_on_holdout, state, spec, holdout_uses=uses, champion_uri=uri, splits=splits
    )
    taken_back = rolled_back(name).get(challenger.model.uri)
    if taken_back and verdict.decision == "promote":
        reason = f"This model was taken back by {taken_back}. It is not promoted again unasked."
        verdict = verdict.model_copy(update={"decision": "hold", "reason": reason})
    run.log_text(verdict.model_dump_json(indent=2), "verdict.json")
    return verdict


def _unreadable(
    champion: Version, challenger: Evaluation, holdout: Dataset, spec: GateSpec, uses: int
) -> Verdict:
    diff = _diff(champion, holdout)
    reason = (
        "The champion cannot read this table. Give it the columns back, or train another --model."
        if diff
        else "The champion was written by another version of ml-platform. Train another --model."
    )
    return Verdict(
        decision="not comparable",
        reason=reason,
        metric=gate.gate_metric(challenger, spec.metric),
        against=champion.uri,
        rows=challenger.rows,
        holdout_uses=uses,
        holdout_note=gate.holdout_note(uses, spec),
        evidence=str(diff or other_format(fetch(champion))),
    )


def _diff(version: Version, table: Dataset) -> InputDiff | None:
    types = {column.name: column.type for column in table.contract.inputs().columns}
    return input_diff(version.model.contract, types, types)


@task(verify=registry.still_champion)
def promote(
    challenger: Evaluation,
    verdict: Verdict,
    champion: Version | None,
    name: str,
    card: str,
    run: TrackingRun = Tracking(),
) -> Version | None:
    """Register the challenger with verdict and card; move the alias if the gate says so. The champion."""
    gain = verdict.gain.model_dump() if verdict.gain else {}
    tags = {"gate.decision": verdict.decision, "gate.against": verdict.against}
    tags |= {f"gate.gain_{key}": f"{value:.6g}" for key, value in gain.items()}
    version = registry.register(
        challenger.model,
        name,
        tags=tags,
        description=as_description(card),
        holdout=challenger.data_fingerprint,
    )
    run.set_tags({"gate.decision": verdict.decision, "model.version": version.uri})
    if verdict.decision != "promote":
        return champion
    return registry.promote(version, champion, why=verdict.reason, run=flow_run.name or "")
