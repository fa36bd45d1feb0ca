"""The model card: what a registered version is, for somebody who did not train it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ml_platform.data.findings import notes, split_notes
from ml_platform.evaluation.metrics import one_answer_notes
from ml_platform.evaluation.slices import slice_table
from ml_platform.specs.problems import Problem
from ml_platform.specs.references import Evaluation, Parts, Table, Verdict, shown
from ml_platform.specs.tables import FeatureState, SplitSpec

MOST_NAMED = 20
MOST_CHARACTERS = 4_900
"""MLflow keeps 5,000 of a description."""


def model_card(
    *,
    name: str,
    table: Table,
    problem: Problem,
    parts: Parts,
    split: SplitSpec,
    state: FeatureState,
    candidates: Sequence[Evaluation],
    challenger: Evaluation,
    verdict: Verdict,
    importance: Mapping[str, float],
) -> str:
    """Data, split, features, metrics, slices, limits, and how the version was chosen, as Markdown."""
    sections = {
        "How it was chosen": _chosen(candidates, challenger, verdict),
        "Metrics on the holdout": _metrics(challenger),
        "Slices": _slices(challenger),
        "Data": _data(table, problem, parts, split, state),
        "Features": _features(state, importance, "rmse" if problem.kind == "regression" else "log_loss"),
        "Limits": _limits(challenger, state, split),
    }
    body = [line for title, lines in sections.items() if lines for line in ("", f"## {title}", "", *lines)]
    head = f"# {name}: predicts `{state.label}` ({problem.kind}, {challenger.model.family})"
    return "\n".join([head, *body, ""])


def as_description(card: str) -> str:
    """The card, or as much of its beginning as MLflow keeps of a version."""
    if len(card) <= MOST_CHARACTERS:
        return card
    whole = card[:MOST_CHARACTERS].rpartition("\n")[0]
    return f"{whole}\n\n… the whole card: model_card.md of the run that trained this model"


def _chosen(candidates: Sequence[Evaluation], challenger: Evaluation, verdict: Verdict) -> list[str]:
    metric = verdict.metric
    lines = [f"**{verdict.decision}**: {verdict.reason}", ""]
    lines += [
        f"- {each.model.family} on {each.part}: {metric} {each.metrics[metric]}"
        + (" (chosen)" if each.model.uri == challenger.model.uri else "")
        for each in candidates
        if metric in each.metrics
    ]
    uses = "once" if verdict.holdout_uses == 1 else f"{verdict.holdout_uses} times"
    return [*lines, f"- against: {verdict.against}; this holdout has decided {uses}"]


def _metrics(challenger: Evaluation) -> list[str]:
    of_groups = f" of {challenger.groups:,} groups" if challenger.groups is not None else ""
    lines = [f"{challenger.rows:,} rows{of_groups}; 95 % bootstrap intervals.", ""]
    lines += ["| metric | value |", "|---|---|"]
    lines += [f"| {name} | {metric} |" for name, metric in challenger.metrics.items()]
    if challenger.calibration is not None:
        lines += ["", f"Probabilities are {challenger.calibration}."]
    return lines


def _slices(challenger: Evaluation) -> list[str]:
    if not challenger.slices:
        return []
    table = slice_table(challenger.slices)
    rows = zip(*table.values(), strict=True)
    lines = [_line(row) for row in rows]
    return [_line(table), "|" + "---|" * len(table), *lines]


def _line(cells: Sequence[object] | Mapping[str, object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _data(table: Table, problem: Problem, parts: Parts, split: SplitSpec, state: FeatureState) -> list[str]:
    aside = f", {table.quarantined:,} more set aside" if table.quarantined else ""
    rows = f"{parts.train.rows:,} to train, {parts.validation.rows:,} to validate"
    lines = [
        f"- {table.source}: {table.data.rows:,} rows{aside}; fingerprint `{table.data.fingerprint[:16]}`",
        f"- label: {problem.reason}",
    ]
    if state.classes:
        lines.append(f"- rows of each class to learn from: {_classes(state)}")
    lines.append(f"- {_dealt(split)}: {rows}, {parts.holdout.rows:,} held out")
    said = (*notes(table.findings), *split_notes(table.findings, split, state.columns), *table.notes)
    return [*lines, *(f"- {note}" for note in said)]


def _classes(state: FeatureState) -> str:
    pairs = list(zip(state.classes, state.class_counts, strict=True))
    more = f" and {len(pairs) - MOST_NAMED:,} more classes" if pairs[MOST_NAMED:] else ""
    return ", ".join(f"{name} {count:,}" for name, count in pairs[:MOST_NAMED]) + more


def _dealt(split: SplitSpec) -> str:
    if split.time is not None:
        return f"split by time, `{split.time}`, the latest rows held out"
    if split.group is not None:
        return f"split by `{split.group}`, rows of one together"
    return f"split by {', '.join(split.key_columns) or 'all columns but the label'}"


def _features(state: FeatureState, importance: Mapping[str, float], metric: str) -> list[str]:
    columns = list(state.columns)
    more = f" and {len(columns) - MOST_NAMED} more" if len(columns) > MOST_NAMED else ""
    count = "1 column" if len(columns) == 1 else f"{len(columns):,} columns"
    lines = [f"{state.width:,} features of {count}: {', '.join(columns[:MOST_NAMED])}{more}"]
    top = list(importance.items())[:10]
    if top:
        lines += ["", f"What matters most (rise of {metric} when a column is dealt anew among rows):", ""]
        rises = shown(*(rise for _, rise in top), sign="+")
        lines += [f"- {name}: {rise}" for (name, _), rise in zip(top, rises, strict=True)]
    return lines


def _limits(challenger: Evaluation, state: FeatureState, split: SplitSpec) -> list[str]:
    later = "" if split.time is not None else " or later times"
    lines = [f"- Measured on rows of the same table: it says nothing about other sources{later}."]
    if state.categories:
        lines.append("- A category that training did not see falls into the bucket of unknown ones.")
    if challenger.calibration is not None and challenger.calibration.error > challenger.calibration.limit:
        lines.append("- Its probabilities are not frequencies: use their order, or calibrate them.")
    lines += [f"- {note}" for note in one_answer_notes(challenger)]
    if state.classes:
        rarest = min(zip(state.class_counts, state.classes, strict=True))
        lines.append(f"- Fewest rows to learn from: {rarest[0]:,} of class {rarest[1]!r}.")
    untold = [str(each) for each in challenger.slices if not each.metrics]
    if untold:
        lines.append(f"- Too few rows to tell: {', '.join(untold[:10])}{', …' if len(untold) > 10 else ''}.")
    if split.group is None and split.time is None:
        lines.append("- Rows were split one by one: where several belong together, name `split.group`.")
    return lines
