"""What a run says at its end: a table in the terminal, artifacts in Prefect, a page in MLflow."""

from __future__ import annotations

from typing import Annotated

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run
from pydantic import Field
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ml_platform import (
    Evaluation,
    FeatureState,
    Metric,
    Parts,
    Predictions,
    SplitSpec,
    Table,
    Tracking,
    Verdict,
    Version,
    task,
)
from ml_platform.data.findings import notes as finding_notes, split_notes
from ml_platform.data.profile_page import draw_profile, profile_page, profile_rows
from ml_platform.engine.server import how_to_open as how_to_open_prefect
from ml_platform.errors import GraphError, PromotionError
from ml_platform.evaluation.bootstrap import sampling_notes
from ml_platform.evaluation.calibration import calibration_notes
from ml_platform.evaluation.metrics import one_answer_notes
from ml_platform.evaluation.slices import CANNOT_TELL, slice_table
from ml_platform.specs.base import NotIdentity, Spec
from ml_platform.specs.problems import Problem, ProblemKind
from ml_platform.specs.references import Calibration, Slice
from ml_platform.specs.tracking import TrackingRun
from ml_platform.store.location import runs_folder
from ml_platform.tracking.server import how_to_open as how_to_open_mlflow

SHOWN: dict[ProblemKind, tuple[str, ...]] = {
    "binary": ("log_loss", "roc_auc"),
    "multiclass": ("log_loss", "accuracy"),
    "regression": ("rmse", "r2"),
}
"""Metrics in the terminal's table, beside that of the gate; all stand in the artifacts and in MLflow."""


BY_RANKS = ("keras", "fine_tuned")


class MeasuredModel(Spec):
    """One line of the table."""

    family: str
    part: str
    metrics: dict[str, Metric]
    uri: Annotated[str, NotIdentity()]
    ranks: int


class Champion(Spec):
    """The version that serves after this run. `metrics` are those on the holdout of this run."""

    name: str
    version: int
    uri: str
    family: str
    metrics: dict[str, Metric]


class RetrainReport(Spec):
    """The result of `flows.retrain`."""

    run: Annotated[str, NotIdentity()]
    problem: Problem
    models: tuple[MeasuredModel, ...] = Field(
        description="Candidates on validation, the challenger on holdout."
    )
    verdict: Verdict
    calibration: Calibration | None = Field(None, description="Of the challenger's probabilities.")
    slices: tuple[Slice, ...] = Field((), description="Of the challenger on the holdout.")
    champion: Champion | None
    predictions: Predictions | None
    quarantined: int
    split: str | None = Field(None, description="Rows of each part, and the proof that they are disjoint.")
    notes: tuple[str, ...] = ()
    links: Annotated[dict[str, str], NotIdentity()]

    def __rich__(self) -> RenderableType:
        verdict = f"{self.verdict.decision}: {self.verdict.reason}"
        names = tuple(dict.fromkeys((*SHOWN[self.problem.kind], self.verdict.metric)))
        table = _models_table(self.models, names)
        slices = [_slices_table(self.slices, names), Text("")] if self.slices else []
        evidence = [Text(f"{'':<12} {line}") for line in self.verdict.evidence.splitlines()]
        said = [*_lines({"verdict": verdict}), *evidence, *_lines(self._facts())]
        return Group(table, Text(""), *slices, *said)

    def _facts(self) -> dict[str, str]:
        champion, scored = self.champion, self.predictions
        facts = {"champion": f"{champion.uri} ({champion.family})" if champion else "none yet"}
        facts["holdout"] = self.verdict.holdout_note
        facts["problem"] = f"{self.problem.kind}: {self.problem.reason}"
        if self.split:
            facts["split"] = self.split
        if self.calibration is not None:
            facts["chances"] = f"{self.calibration}"
        if scored:
            facts["predictions"] = f"{_counts(scored)}: {scored.uri}"
        facts.update({f"note {i}": note for i, note in enumerate(self.notes, 1)})
        return {**facts, **self.links}

    def markdown(self) -> str:
        """The same for a page."""
        names = list(dict.fromkeys(name for model in self.models for name in model.metrics))
        rows = [
            f"| {m.family} | {m.part} | " + " | ".join(_shown(m.metrics, name) for name in names) + " |"
            for m in self.models
        ]
        head = f"| model | measured on | {' | '.join(names)} |", f"|{'---|' * (len(names) + 2)}"
        facts = [f"- **{name}**: {value}" for name, value in self._facts().items()]
        verdict = f"**{self.verdict.decision}**: {self.verdict.reason}"
        slices = [*_slice_lines(self.slices), ""] if self.slices else []
        evidence = ["```", self.verdict.evidence, "```", ""] if self.verdict.evidence else []
        return "\n".join(
            [f"# Retrain {self.run}", "", verdict, "", *evidence, *head, *rows, "", *slices, *facts]
        )


class ScoringReport(Spec):
    """The result of `flows.batch_inference`."""

    run: Annotated[str, NotIdentity()]
    model: str
    predictions: Predictions
    links: Annotated[dict[str, str], NotIdentity()]

    def __rich__(self) -> RenderableType:
        scored = self.predictions
        counts = f"{_counts(scored)}: {scored.uri}"
        return Group(*_lines({"model": self.model, "predictions": counts, **self.links}))

    def markdown(self) -> str:
        """The same for a page."""
        scored = self.predictions
        facts = [f"- **{name}**: {value}" for name, value in self.links.items()]
        counts = f"{_counts(scored)}, in `{scored.uri}`"
        return "\n".join([f"# Scored with {self.model}", "", counts, "", *facts])


@task(whole=["table", "problem", "parts", "scored"])
def report_retrain(
    table: Table,
    problem: Problem,
    candidates: list[Evaluation],
    challenger: Evaluation,
    champion_on_holdout: Evaluation | None,
    verdict: Verdict,
    winner: Version | None,
    scored: Predictions | None,
    parts: Parts | None = None,
    split: SplitSpec | None = None,
    state: FeatureState | None = None,
    require_promotion: bool = False,
    run: TrackingRun = Tracking(),
) -> RetrainReport:
    """Gather what the run found; leave it in Prefect and MLflow.

    Raises:
        PromotionError: A promotion is required, and the challenger does not serve.
    """
    evaluations = [*candidates, challenger]
    measured = challenger if winner and winner.model == challenger.model else champion_on_holdout
    report = RetrainReport(
        run=str(flow_run.name),
        problem=problem,
        models=tuple(_measured(evaluation) for evaluation in evaluations),
        verdict=verdict,
        calibration=challenger.calibration,
        slices=challenger.slices,
        champion=_champion(winner, measured) if winner else None,
        predictions=scored,
        quarantined=table.quarantined,
        split=str(parts) if parts else None,
        notes=(
            *table.notes,
            *finding_notes(table.findings),
            *(split_notes(table.findings, split, state.columns) if split and state else ()),
            *_notes(evaluations),
            *one_answer_notes(challenger),
            *calibration_notes(challenger.calibration, verdict),
            *_unscored(winner, scored),
        ),
        links={**_quarantine(table), **_links(run)},
    )
    run.log_text(report.markdown(), "report.md")
    create_markdown_artifact(report.markdown(), key="retrain-report", description="What the run found.")
    create_table_artifact(
        _artifact_rows(report.models), key="retrain-metrics", description="Metrics with intervals."
    )
    _leave_profile(run, table)
    _link_artifact(report.links)
    if require_promotion and not (winner and winner.model == challenger.model):
        raise _not_promoted(report)
    return report


NEXT_STEPS = {
    "promote": "run again",
    "hold": "train on more rows or longer, or let --gate.margin and --gate.confidence ask for less",
    "cannot tell": "add rows: the holdout is too small to tell",
    "reject": "see what changed since the champion: python -m flows.retrain diff OLD-RUN NEW-RUN",
    "not comparable": "train under another --model, or with the table and the split of the champion",
}
"""What to do about a verdict where a promotion is required."""


def _not_promoted(report: RetrainReport) -> PromotionError:
    names, record = SHOWN[report.problem.kind], report.links["record"]
    measured = [
        f"{model.family} on {model.part}: {', '.join(f'{n} {_shown(model.metrics, n)}' for n in names)}"
        for model in report.models
    ]
    return PromotionError(
        "a promotion is required, and the challenger was not promoted",
        wanted="promote",
        got=f"{report.verdict.decision}: {report.verdict.reason}",
        evidence="\n".join([*report.verdict.evidence.splitlines(), *measured, f"record: {record}"]),
        hint=NEXT_STEPS[report.verdict.decision],
    )


def _leave_profile(run: TrackingRun, table: Table) -> None:
    """What the table holds, as a page, a table and a picture."""
    if table.profile is None:
        return
    run.log_text(profile_page(table), "profile.md")
    run.log_figure(draw_profile(table.profile, table.source), "profile.png")
    create_table_artifact(profile_rows(table.profile), key="retrain-profile", description="The columns.")


@task(whole=["scored"])
def report_scoring(scored: Predictions | None, run: TrackingRun = Tracking()) -> ScoringReport:
    """Gather what was scored; leave it in Prefect and MLflow."""
    if scored is None:
        raise GraphError("there is nothing to report", wanted="predictions", got="no version to score with")
    report = ScoringReport(
        run=str(flow_run.name), model=scored.model_uri, predictions=scored, links=_links(run)
    )
    run.log_metrics({"rows": scored.rows, "failed_rows": scored.failed_rows})
    run.log_text(report.markdown(), "report.md")
    create_markdown_artifact(report.markdown(), key="scoring-report", description="What was scored.")
    _link_artifact(report.links)
    return report


def _counts(scored: Predictions) -> str:
    reused = f", {scored.reused_rows:,} of them scored before" if scored.reused_rows else ""
    return f"{scored.rows:,} rows, {scored.failed_rows} with an error{reused}"


def _measured(evaluation: Evaluation) -> MeasuredModel:
    model = evaluation.model
    return MeasuredModel(
        family=model.family,
        part=evaluation.part,
        metrics=evaluation.metrics,
        uri=model.uri,
        ranks=model.ranks,
    )


def _champion(winner: Version, measured: Evaluation | None) -> Champion:
    return Champion(
        name=winner.name,
        version=winner.version,
        uri=winner.uri,
        family=winner.model.family,
        metrics=measured.metrics if measured else {},
    )


def _notes(evaluations: list[Evaluation]) -> list[str]:
    alone = any(e.model.family in BY_RANKS and e.model.ranks == 1 for e in evaluations)
    notes = ["Keras was trained by one rank, not distributed: `python -m ml_platform doctor` says why."]
    return [*(notes if alone else []), *sampling_notes(evaluations)]


def _unscored(winner: Version | None, scored: Predictions | None) -> list[str]:
    if scored is not None:
        return []
    why = f"{winner.uri} cannot read this table" if winner else "no version serves yet"
    return [f"Nothing was scored: {why}."]


def _quarantine(table: Table) -> dict[str, str]:
    if table.quarantine is None:
        return {}
    return {"quarantined": f"{table.quarantined:,} rows, a reason beside each: {table.quarantine.uri}"}


def _links(run: TrackingRun) -> dict[str, str]:
    flow_run_id = str(flow_run.id)
    return {
        "prefect": how_to_open_prefect(flow_run_id),
        "mlflow": how_to_open_mlflow(run.run_id),
        "record": str(runs_folder(str(flow_run.name)) / "run.json"),
    }


def _link_artifact(links: dict[str, str]) -> None:
    for name, link in links.items():
        if link.startswith("http"):
            create_link_artifact(link, key=f"{name}-link", link_text=f"Open in {name}")


def _lines(facts: dict[str, str]) -> list[Text]:
    """Names and values; a link is never broken, so that a terminal can open it."""
    return [Text(f"{name:<12} {value}", no_wrap=True, overflow="ignore") for name, value in facts.items()]


def _shown(metrics: dict[str, Metric], name: str) -> str:
    return str(metrics[name]) if name in metrics else "–"


def _models_table(models: tuple[MeasuredModel, ...], shown: tuple[str, ...]) -> RichTable:
    table = RichTable(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("model", "measured on", *shown):
        table.add_column(name)
    for model in models:
        ranks = f" × {model.ranks} rank{'s' if model.ranks > 1 else ''}" if model.family in BY_RANKS else ""
        table.add_row(f"{model.family}{ranks}", model.part, *(_shown(model.metrics, name) for name in shown))
    return table


def _slice_lines(slices: tuple[Slice, ...]) -> list[str]:
    table = slice_table(slices)
    rows = zip(*table.values(), strict=True)
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(table) + " |", "|" + "---|" * len(table), *lines]


def _slices_table(slices: tuple[Slice, ...], shown: tuple[str, ...]) -> RichTable:
    table = RichTable(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("slice of the holdout", "rows", *shown):
        table.add_column(name)
    for each in slices:
        found = (_shown(each.metrics, name) if each.metrics else CANNOT_TELL for name in shown)
        table.add_row(Text(str(each)), f"{each.rows:,}", *found)
    return table


def _artifact_rows(models: tuple[MeasuredModel, ...]) -> list[dict[str, object]]:
    return [
        {
            "model": m.family,
            "measured on": m.part,
            **{name: str(m.metrics[name]) for name in m.metrics},
            "uri": m.uri,
        }
        for m in models
    ]
