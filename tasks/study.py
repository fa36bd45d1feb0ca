"""What a study says: pictures, the importance of parameters, a leaderboard over all families."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import Field, JsonValue
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ml_platform import Tracking, task
from ml_platform.evaluation.pictures import draw_importance
from ml_platform.specs.base import NotIdentity, Spec
from ml_platform.specs.references import Family, ModelFamily, shown
from ml_platform.specs.tracking import TrackingRun
from ml_platform.specs.tuning import Space, Trial
from ml_platform.tuning import pictures
from ml_platform.tuning.board import any_complete, ranked, reasons
from ml_platform.tuning.spaces import label
from tasks.report import RetrainReport

SHOWN_TRIALS = 10
"""In the terminal. All of them stand in the artifacts and in MLflow."""


class RankedTrial(Spec):
    """A line of the leaderboard."""

    family: ModelFamily
    number: int
    state: Literal["complete", "pruned", "failed", "not run"]
    value: float | None
    parameters: dict[str, JsonValue]
    seconds: Annotated[float, NotIdentity()]
    reason: str = ""
    run_id: Annotated[str, NotIdentity()] = ""

    @property
    def said(self) -> str:
        """The point, and why it was ended or failed."""
        return ": ".join(filter(None, (self.point, self.reason)))

    @property
    def point(self) -> str:
        """The point as people write it."""
        return ", ".join(f"{name} {_shown(value)}" for name, value in self.parameters.items())


class TuneReport(Spec):
    """The result of `flows.tune`."""

    metric: str = Field(description="What trials are ranked by, on validation; less is better.")
    trials: tuple[RankedTrial, ...] = Field(description="Of all families, the best first.")
    importance: dict[Family, dict[str, float]] = Field(
        description="Share of the variance of the loss that each parameter explains."
    )
    without_model: dict[Family, tuple[str, ...]] = Field(
        {}, description="Families of which no trial gave a model, and why."
    )
    retrain: RetrainReport = Field(description="What became of the best models.")

    def __rich__(self) -> RenderableType:
        lines = [Text(line) for line in self._facts()]
        more = len(self._begun()) - SHOWN_TRIALS
        rest = [Text(f"… {more} more: tune.md and trials.json in MLflow")] if more > 0 else []
        return Group(self._table(), *rest, Text(""), *lines, Text(""), self.retrain)

    def markdown(self) -> str:
        """The same for a page."""
        head = [f"| trial | state | {self.metric} | parameters | seconds |", "|---|---|---:|---|---:|"]
        rows = [
            f"| {each.family} {each.number} | {each.state} | {_number(each.value)} | "
            f"{each.said.replace('|', '/')} | {each.seconds:.1f} |"
            for each in self._begun()
        ]
        facts = [f"- {line}" for line in self._facts()]
        return "\n".join(["# Trials", "", *head, *rows, "", *facts, "", self.retrain.markdown()])

    def rows(self) -> list[dict[str, object]]:
        """A line per trial, for a table."""
        return [
            {
                "trial": f"{each.family} {each.number}",
                "state": each.state,
                self.metric: each.value,
                "parameters": each.point,
                "seconds": each.seconds,
                "reason": each.reason,
                "run": each.run_id,
            }
            for each in self.trials
        ]

    def _begun(self) -> list[RankedTrial]:
        """Those that have something to show: a search that ran out of time may have left many."""
        return [each for each in self.trials if each.state != "not run"]

    def _table(self) -> RichTable:
        rows = [
            (f"{each.family} {each.number}", each.state, _number(each.value), f"{each.seconds:.1f}")
            for each in self._begun()[:SHOWN_TRIALS]
        ]
        table = RichTable(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for name, *cells in zip(("trial", "state", self.metric, "seconds"), *rows, strict=True):
            is_number = name in (self.metric, "seconds")
            # Where the terminal is narrow, parameters take more lines, and numbers stay whole.
            table.add_column(name, justify="right" if is_number else "left", min_width=max(map(len, cells)))
        table.add_column("parameters", overflow="fold")
        for row, each in zip(rows, self._begun(), strict=False):
            table.add_row(*row, Text(each.said))
        return table

    def _facts(self) -> list[str]:
        counts = {state: sum(each.state == state for each in self.trials) for state in _STATES}
        said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        reasons = dict.fromkeys(each.reason for each in self.trials if each.state == "not run")
        said += f" ({'; '.join(reasons)})" if reasons else ""
        facts = [f"{'trials':<12} {said}; {sum(each.seconds for each in self.trials):.0f} s in all"]
        for family, why in self.without_model.items():
            facts += [f"{'no model':<12} {family}: {'; '.join(why)}"]
        for family, shares in self.importance.items():
            told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            facts += [f"{'importance':<12} {family}: {told}"] if told else []
        return facts


_STATES = ("complete", "pruned", "failed", "not run")


@task
def explain_study(
    trials: list[Trial], space: Space, base: Spec, run: TrackingRun = Tracking()
) -> dict[str, float]:
    """Which parameters mattered, with pictures of the study on the run."""
    family = trials[0].family
    shares = pictures.importance(trials, space, base)
    run.log_figure(pictures.draw_history(trials, f"{family}: {len(trials)} trials"), f"history_{family}.png")
    run.log_figure(
        pictures.draw_parallel(trials, space, f"{family}: parameters"), f"parallel_coordinates_{family}.png"
    )
    if shares:
        title = f"{family}: importance of parameters"
        figure = draw_importance(shares, title, measure="share of the variance of the loss", of="parameter")
        run.log_figure(figure, f"importance_of_parameters_{family}.png")
    return shares


@task(whole=["studies", "retrain"])
def report_study(
    studies: list[list[Trial]],
    importance: list[dict[str, float]],
    retrain: RetrainReport,
    run: TrackingRun = Tracking(),
) -> TuneReport:
    """All trials in one leaderboard; left in Prefect and MLflow."""
    lines = [_line(number, trial) for trials in studies for number, trial in enumerate(trials, 1)]
    trials = [trial for study in studies for trial in study]
    report = TuneReport(
        metric=next((trial.metric for trial in trials if trial.metric), "loss"),
        trials=tuple(lines[at - 1] for at, _ in ranked(trials)),
        importance={study[0].family: shares for study, shares in zip(studies, importance, strict=True)},
        without_model={
            study[0].family: tuple(reasons(study)) for study in studies if not any_complete(study)
        },
        retrain=retrain,
    )
    rows = report.rows()
    run.log_table({name: [row[name] for row in rows] for name in rows[0]}, "trials.json")
    run.log_text(report.markdown(), "tune.md")
    create_table_artifact(rows, key="trials", description="Every trial, the best first.")
    create_markdown_artifact(report.markdown(), key="tune-report", description="Trials, and the winner.")
    return report


def _line(number: int, trial: Trial) -> RankedTrial:
    same = trial.model_dump(include={"family", "state", "value", "parameters", "seconds", "reason", "run_id"})
    return RankedTrial(number=number, **same)


def _shown(value: JsonValue) -> str:
    return f"{value:.4g}" if isinstance(value, float) else label(value)


def _number(value: float | None) -> str:
    """A loss, with decimals that stand under each other.

    >>> _number(0.546), _number(0.53441), _number(None)
    ('0.5460', '0.5344', '–')
    """
    return "–" if value is None else shown(value)[0]
