"""The gate: whether a challenger replaces the champion, on paired evidence of the holdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.errors import SpecError, nearest
from ml_platform.evaluation.bootstrap import by_group, cautious_mean_interval
from ml_platform.evaluation.measure import read_rows
from ml_platform.evaluation.metrics import (
    LOSS_COLUMNS,
    LOWER_IS_BETTER,
    groups_of,
    primary_metric,
    row_errors,
    row_losses,
)
from ml_platform.specs.contracts import Contract
from ml_platform.specs.references import Evaluation, Metric, Slice, Verdict, shown
from ml_platform.specs.tables import FeatureState, SplitSpec
from ml_platform.specs.training import GateSpec

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

TRIVIAL = "trivial predictor"
ITSELF = "The challenger is the champion itself, {champion}: nothing better was trained since its promotion."
OPTION = "--gate.minimum-rows"
"""What a person asks for fewer rows with."""

LOSS_NAMES = {
    "log_loss": "log loss",
    "brier": "Brier score",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
}
"""What people call what is compared."""


def choose_challenger(evaluations: Sequence[Evaluation], metric: str | None = None) -> Evaluation:
    """The evaluation with the best value of `metric`; the first of equals.

    Args:
        metric: None: the primary one of the kind of problem.

    Raises:
        SpecError: There are none, the models have no such metric, or one was not measured on validation: who
            chooses on the holdout cannot trust it afterwards.
    """
    if not evaluations or any(evaluation.part != "validation" for evaluation in evaluations):
        raise SpecError(
            "a challenger is chosen among models measured on validation",
            got=", ".join(f"{each.model.family} on {each.part}" for each in evaluations) or "no models",
        )
    metric = gate_metric(evaluations[0], metric)
    sign = 1 if LOWER_IS_BETTER[metric] else -1
    return min(evaluations, key=lambda evaluation: sign * evaluation.metrics[metric].value)


def gate_metric(evaluation: Evaluation, asked: str | None) -> str:
    """`asked`, or the primary metric of the kind of problem.

    Raises:
        SpecError: Models of this kind have no such metric.
    """
    metric = asked or primary_metric(evaluation.model.problem)
    if metric not in evaluation.metrics:
        raise SpecError(
            f"the model has no metric {metric!r}",
            wanted=f"one of {', '.join(evaluation.metrics)}, for {evaluation.model.problem}",
            hint=nearest(metric, evaluation.metrics),
        )
    return metric


def decide(
    challenger: Evaluation,
    champion: Evaluation | None,
    state: FeatureState,
    spec: GateSpec,
    *,
    holdout_uses: int = 1,
    champion_uri: str | None = None,
    splits: tuple[SplitSpec, SplitSpec] | None = None,
) -> Verdict:
    """Decide on the mean difference of per-row loss, champion less challenger: the gain.

    That of squared errors is said, and held against the margin, in the label's own unit.

    Args:
        champion: The champion measured on the same rows. None: the trivial predictor stands in, which gives
            every row the shares of the classes in the training part, or the mean of its labels.
        state: Of the challenger; its class counts or its mean make the trivial predictor.
        holdout_uses: Challengers that this holdout has judged, this one included.
        champion_uri: How the verdict names the champion; by default its model's uri.
        splits: Of challenger and champion. When they differ, the champion may have seen the holdout.
    Raises:
        SpecError: The challenger was not measured on the holdout, or not by the metric of `spec`.
        StoreError: Measured rows are gone.
    """
    if challenger.part != "holdout":
        raise SpecError("the gate decides on the holdout", got=f"a challenger measured on {challenger.part}")
    against = TRIVIAL if champion is None else (champion_uri or champion.model.uri)
    metric = gate_metric(challenger, spec.metric)
    report = _Report(spec, metric, against, challenger, holdout_uses)
    obstacle = None if champion is None else _incomparable(challenger, champion, splits)
    if obstacle:
        return report.verdict("not comparable", obstacle)
    if challenger.rows < spec.minimum_rows:
        return report.verdict(
            "cannot tell",
            f"The holdout has {challenger.rows} rows; {spec.minimum_rows} are needed to tell ({OPTION}).",
        )
    rows = read_rows(challenger)
    groups = challenger.groups
    if groups is not None and groups < spec.minimum_rows:
        return report.verdict(
            "cannot tell",
            f"The holdout has {groups} groups; {spec.minimum_rows} are needed to tell ({OPTION}).",
        )
    rare = _rarest(rows, challenger.model.classes, spec.minimum_rows)
    if rare:
        return report.verdict("cannot tell", rare)
    if champion is None:
        opposed: NDArray[np.float64] | None = trivial_losses(rows, state, metric)
    else:
        opposed = _paired_losses(rows, read_rows(champion), metric)
    if opposed is None:
        return report.verdict("not comparable", "The two models were not measured on the same rows.")
    gain, theirs = paired_gain(_losses(rows, metric), opposed, spec, groups_of(rows)), float(opposed.mean())
    if metric == "rmse":
        gain, theirs = in_label_units(gain, theirs), float(np.sqrt(theirs))
    verdict = report.weigh(gain, theirs)
    if champion is not None and champion.model.uri == challenger.model.uri and verdict.decision == "hold":
        verdict = verdict.model_copy(update={"reason": ITSELF.format(champion=against)})
    return verdict if verdict.decision != "promote" else _held_by_floors(verdict, challenger, spec)


def paired_gain(
    challenger: NDArray[np.float64],
    opposed: NDArray[np.float64],
    spec: GateSpec,
    groups: NDArray[np.int64] | None = None,
) -> Metric:
    """Mean of `opposed - challenger` with its bootstrap interval; above 0 the challenger is better.

    Args:
        challenger: Shape (rows,), loss of each row.
        opposed: Shape (rows,), loss of the same rows under the champion.
        groups: Shape (rows,), numbers of groups from 0, which are resampled in place of rows.
    """
    difference = opposed - challenger
    if groups is not None:
        difference = by_group(difference, groups)
    low, high = cautious_mean_interval(
        difference, resamples=spec.resamples, confidence=spec.confidence, seed=spec.seed
    )
    return Metric(value=float(difference.mean()), low=float(low), high=float(high))


def in_label_units(gain: Metric, opposed: float) -> Metric:
    """A gain in mean squared error as one in its root, which people can read; 0 stays 0.

    a - b = (√a - √b) (√a + √b): the ends of the interval are divided by the sum of the two roots, as the gain
    itself. Roots of the ends would lay all that is unsure on the challenger: it might have no error at all.

    Args:
        opposed: The mean squared error of the champion.

    >>> in_label_units(Metric(value=9, low=-9, high=18), opposed=25)
    Metric(value=1.0, low=-1.0, high=2.0)
    """
    roots = float(np.sqrt(opposed) + np.sqrt(max(0.0, opposed - gain.value)))
    if roots == 0:
        return Metric(value=0, low=0, high=0)
    return Metric(value=gain.value / roots, low=gain.low / roots, high=gain.high / roots)


def judge(gain: Metric, spec: GateSpec) -> str:
    """promote, reject or hold: promote only when all of the interval lies above the margin."""
    if gain.low > spec.margin:
        return "promote"
    return "reject" if gain.high < 0 else "hold"


def holdout_note(uses: int, spec: GateSpec) -> str:
    """What it means that a holdout has judged so many challengers.

    >>> holdout_note(1, GateSpec())
    'This holdout has judged 1 challenger.'
    """
    if uses == 1:
        return "This holdout has judged 1 challenger."
    once = (1 - spec.confidence) / 2
    return (
        f"This holdout has judged {uses} challengers; an equal one is promoted by luck {once:.1%} of the "
        f"time at most, one of {uses} up to {1 - (1 - once) ** uses:.0%}. "
        "Add rows, or raise --gate.confidence."
    )


def trivial_losses(rows: pa.Table, state: FeatureState, metric: str) -> NDArray[np.float64]:
    """Loss of each row under the class shares of the training part, or under its mean. Shape (rows,)."""
    labels = rows.column("label").to_numpy()
    none_failed = np.zeros(len(labels), bool)
    if state.target is not None:
        means = np.full(len(labels), state.target.center)
        return row_errors(means, labels, none_failed, state.target.scale)[LOSS_COLUMNS[metric]]
    counts = np.array(state.class_counts, np.float64)
    shares = np.broadcast_to(counts / counts.sum(), (len(labels), len(counts)))
    return row_losses(shares, labels, none_failed)[LOSS_COLUMNS[metric]]


class _Report:
    """What every verdict of one decision has in common."""

    def __init__(
        self, spec: GateSpec, metric: str, against: str, challenger: Evaluation, holdout_uses: int
    ) -> None:
        self.spec, self.metric, self.against = spec, metric, against
        self.rows, self.groups, self.holdout_uses = challenger.rows, challenger.groups, holdout_uses

    def verdict(self, decision: str, reason: str, gain: Metric | None = None) -> Verdict:
        return Verdict.model_validate(
            {
                "decision": decision,
                "reason": reason,
                "metric": self.metric,
                "against": self.against,
                "gain": gain,
                "rows": self.rows,
                "holdout_uses": self.holdout_uses,
                "holdout_note": holdout_note(self.holdout_uses, self.spec),
            }
        )

    def weigh(self, gain: Metric, opposed: float) -> Verdict:
        decision = judge(gain, self.spec)
        return self.verdict(decision, self._sentence(decision, gain, opposed), gain)

    def _sentence(self, decision: str, gain: Metric, opposed: float) -> str:
        who = "the trivial predictor" if self.against == TRIVIAL else "the champion"
        size, whole = shown(abs(gain.value), opposed, gain.low, gain.high)[:2]
        of_groups = "" if self.groups is None else f" of {self.groups:,} groups"
        low, high = shown(gain.low, gain.high, gain.value, sign="+")[:2]
        span = f"({self.spec.confidence:.0%} interval {low} to {high}, {self.rows:,} rows{of_groups})"
        loss = LOSS_NAMES[self.metric]
        measured = f"the {loss} is {size} {'lower' if gain.value >= 0 else 'higher'} than its {whole}"
        endings = {
            "promote": f"Better than {who}: {measured} {span}.",
            "reject": f"Worse than {who}: {measured} {span}.",
            "hold": f"Not shown to be better than {who}: {measured} {span}.",
        }
        if decision == "hold" and gain.low > 0:
            return f"Better than {who}, but not by the margin of {self.spec.margin:g}: {measured} {span}."
        if gain.low == gain.high == 0:
            return f"Exactly as good as {who}: the {loss} is its {whole}, the same in all {self.rows:,} rows."
        return endings[decision]


def _incomparable(
    challenger: Evaluation, champion: Evaluation, splits: tuple[SplitSpec, SplitSpec] | None
) -> str | None:
    """Why the two cannot be compared, as a sentence; None when they can."""
    if splits and splits[0] != splits[1]:
        return "The champion was trained under another split: it may have seen rows of this holdout."
    if (challenger.part, challenger.data_fingerprint, challenger.rows) != (
        champion.part,
        champion.data_fingerprint,
        champion.rows,
    ):
        return (
            f"The champion was measured on other rows: {champion.rows:,} of {champion.part} "
            f"{champion.data_fingerprint[:12]}, not {challenger.rows:,} of {challenger.part} "
            f"{challenger.data_fingerprint[:12]}."
        )
    if challenger.model.problem != champion.model.problem:
        return f"The champion solves another problem: {champion.model.problem}."
    if set(challenger.model.classes) != set(champion.model.classes):
        differing = sorted(set(challenger.model.classes) ^ set(champion.model.classes))
        return f"The champion knows other classes; only one of the two knows {', '.join(differing[:5])}."
    if not _has_own_keys(splits) and _shape(challenger.model.contract) != _shape(champion.model.contract):
        changed = sorted(
            {name for name, _ in _shape(challenger.model.contract) ^ _shape(champion.model.contract)}
        )
        return (
            f"The champion reads other columns; they differ in {', '.join(changed[:5])}. Rows are dealt by "
            "all columns, so it may have seen rows of this holdout (--split.key-columns keeps their part)."
        )
    return None


def _has_own_keys(splits: tuple[SplitSpec, SplitSpec] | None) -> bool:
    """Whether rows keep their part when columns are added."""
    return splits is not None and bool(splits[0].key_columns or splits[0].group or splits[0].time)


def _shape(contract: Contract) -> frozenset[tuple[str, str]]:
    return frozenset((column.name, column.type) for column in contract.columns)


def _held_by_floors(verdict: Verdict, challenger: Evaluation, spec: GateSpec) -> Verdict:
    """The verdict, unless a metric is beyond its floor, on the whole or in a slice large enough to tell.

    Raises:
        SpecError: Models of this kind have no such metric.
    """
    for metric in spec.floors:
        gate_metric(challenger, metric)
    whole = Slice(column="all", value="rows", rows=challenger.rows, metrics=challenger.metrics)
    told = [each for each in (whole, *challenger.slices) if each.rows >= spec.minimum_rows]
    below = [
        (each, metric)
        for each in told
        for metric, floor in spec.floors.items()
        if metric in each.metrics and _beyond(each.metrics[metric].value, metric, floor)
    ]
    untold = [each for each in challenger.slices if each.rows < spec.minimum_rows] if spec.floors else []
    reason = verdict.reason + _untold(untold, spec.minimum_rows)
    if not below:
        return verdict.model_copy(update={"reason": reason})
    surely = any(
        _beyond(found.high if not LOWER_IS_BETTER[metric] else found.low, metric, spec.floors[metric])
        for each, metric in below
        for found in (each.metrics[metric],)
    )
    said = "; ".join(_below(each, metric, spec.floors[metric]) for each, metric in below[:5])
    more = f" and {len(below) - 5} more" if len(below) > 5 else ""
    decision = "reject" if surely else "hold"
    return verdict.model_copy(
        update={"decision": decision, "reason": f"Beyond a floor: {said}{more}. {reason}"}
    )


def _beyond(value: float, metric: str, floor: float) -> bool:
    return value > floor if LOWER_IS_BETTER[metric] else value < floor


def _below(of: Slice, metric: str, floor: float) -> str:
    return f"{of} has {metric} {of.metrics[metric]} in {of.rows:,} rows, the floor is {floor:g}"


def _untold(slices: Sequence[Slice], least: int) -> str:
    if not slices:
        return ""
    named = ", ".join(f"{each} ({each.rows})" for each in slices[:5])
    more = f" and {len(slices) - 5} more" if len(slices) > 5 else ""
    return f" Cannot tell in slices with fewer than {least} rows: {named}{more}."


def _rarest(rows: pa.Table, classes: tuple[str, ...], least: int) -> str | None:
    """Which class has too few rows to tell, as a sentence; None when none has."""
    if not classes:
        return None
    labels = rows.column("label").to_numpy()
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    few = np.flatnonzero(counts < least)
    if not len(few):
        return None
    rarest = few[np.argmin(counts[few])]
    others = f" (and {len(few) - 1} more classes)" if len(few) > 1 else ""
    count = f"{counts[rarest]} row{'' if counts[rarest] == 1 else 's'}"
    found = f"Class {classes[rarest]!r} has {count} in the holdout{others}"
    return f"{found}; {least} are needed to tell ({OPTION})."


def _paired_losses(rows: pa.Table, opposed: pa.Table, metric: str) -> NDArray[np.float64] | None:
    """The champion's losses beside the challenger's rows; None when the rows are not the same."""
    if not np.array_equal(rows.column("row_key").to_numpy(), opposed.column("row_key").to_numpy()):
        return None
    return _losses(opposed, metric)


def _losses(rows: pa.Table, metric: str) -> NDArray[np.float64]:
    return np.asarray(rows.column(LOSS_COLUMNS[metric]).to_numpy(), np.float64)
