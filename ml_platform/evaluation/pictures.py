"""Pictures of a model: confusion matrix, reliability, residuals, learning curves. No global state.

Each function returns a `matplotlib.figure.Figure` that nobody else holds, so it is safe in any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.evaluation.calibration import BINS as RELIABILITY_BINS, believed, bins_of
from ml_platform.evaluation.metrics import confusion_of
from ml_platform.evaluation.ranking import Ranking

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

DPI = 120
MOST_CLASSES = 30
"""Above this a matrix cannot be read; the commonest confusions are listed instead."""

TOP_CONFUSIONS = 25
MOST_POINTS = 5_000
TOP_FEATURES = 25
NAME_CHARACTERS, LONG_NAME_CHARACTERS = 18, 32
BLUE, ORANGE, GREY = "#1f5fa8", "#d9722e", "#8a8a8a"


def draw_all(rows: pa.Table, classes: Sequence[str], title: str) -> dict[str, Figure]:
    """Every picture of an evaluation's rows, by name.

    Args:
        classes: Names, in the order of the model's outputs. None: it predicts a number.
    """
    if not classes:
        return {"residuals": draw_residuals(rows, title)}
    found = {
        "confusion_matrix": draw_confusion(rows, classes, title),
        "reliability": draw_reliability(rows, title, classes),
    }
    if len(classes) == 2 and (curves := draw_ranking(rows, classes[1], title)) is not None:
        found["roc_and_precision_recall"] = curves
    return found


def draw_ranking(rows: pa.Table, positive: str, title: str) -> Figure | None:
    """ROC curve, and precision against recall, of a binary evaluation; None where one class has no row."""
    labels = rows.column("label").to_numpy()
    known = labels >= 0
    of_class = labels[known] == 1
    if of_class.all() or not of_class.any():
        return None
    ranking = Ranking(rows.column("score").to_numpy()[known], of_class)
    curves, ones, share = ranking.curves(), np.ones(len(of_class)), float(of_class.mean())
    figure = _figure(9.6, 4.8)
    name = short(positive, LONG_NAME_CHARACTERS)
    counted = f"{int(of_class.sum()):,} of {len(of_class):,} rows are {name}"
    figure.suptitle(f"{title}\n{counted}", fontsize=11)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="by chance")
    left.plot(curves["false_positive_rate"], curves["recall"], color=BLUE, label="model")
    left.set(xlabel="false positive rate", ylabel="true positive rate (recall)")
    left.set_title(f"ROC, area {float(ranking.roc_auc(ones)):.4f}", fontsize=9, color=GREY)
    right.axhline(share, color=GREY, linestyle=":", label="by chance")
    right.step(curves["recall"], curves["precision"], color=BLUE, where="pre", label="model")
    right.set(xlabel="recall", ylabel="precision")
    average = float(ranking.average_precision(ones))
    right.set_title(f"average precision {average:.4f}", fontsize=9, color=GREY)
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
    left.legend(frameon=False, loc="lower right")
    right.legend(frameon=False, loc="lower left")
    _plain(left, right)
    return figure


def draw_residuals(rows: pa.Table, title: str) -> Figure:
    """Predicted against actual numbers, and how the errors are spread.

    Args:
        rows: Lines of an evaluation of a model that predicts a number.
    """
    from matplotlib.ticker import MaxNLocator

    kept = rows.filter(rows.column("predicted").is_valid())
    label, predicted = kept.column("label").to_numpy(), kept.column("predicted").to_numpy()
    shown = np.random.default_rng(0).permutation(len(label))[:MOST_POINTS]
    failed = rows.num_rows - len(label)
    figure = _figure(10.4, 4.6)
    noted = f", {failed:,} without a prediction" if failed else ""
    figure.suptitle(f"{title}\n{rows.num_rows:,} rows{noted}", fontsize=11)
    left, right = figure.subplots(1, 2)
    both = np.concatenate([label, predicted])
    ends = [float(both.min()), float(both.max())] if len(both) else [0.0, 1.0]
    left.plot(ends, ends, color=GREY, linestyle=":", label="perfect")
    size, alpha = (3, 0.25) if len(shown) > 1_000 else (5, 0.6)
    left.plot(label[shown], predicted[shown], ".", color=BLUE, markersize=size, alpha=alpha)
    left.set(xlabel="actual", ylabel="predicted")
    left.legend(frameon=False, loc="upper left")
    residuals = predicted - label
    low, high = np.quantile(residuals, [0.005, 0.995]) if len(label) else (0.0, 1.0)
    right.hist(np.clip(residuals, low, high), bins=min(40, 8 + len(label) // 15), color=BLUE)
    right.axvline(0, color=GREY, linestyle=":")
    if len(label):
        mean = float(residuals.mean())
        right.axvline(mean, color=ORANGE, label=f"mean {mean:+.4g}")
        right.legend(frameon=False)
    right.set(xlabel="predicted − actual (the outer 1 % in the last bars)", ylabel="rows")
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    _plain(left, right)
    return figure


def draw_confusion(rows: pa.Table, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix with counts; for more than 30 classes the commonest confusions as bars.

    Args:
        rows: Lines of an evaluation (`ml_platform.evaluation.measure.read_rows`).
        classes: Names, in the order of the model's outputs.
    """
    confusion = confusion_of(rows, len(classes))
    if len(classes) > MOST_CLASSES:
        names = [short(name, LONG_NAME_CHARACTERS) for name in classes]
        return _draw_top_confusions(confusion, [*names, "(unknown)"], title)
    names = [short(name, NAME_CHARACTERS) for name in classes]
    unknown, failed = confusion[-1].sum() > 0, confusion[:, -1].sum() > 0
    shown = confusion[: len(classes) + unknown, : len(classes) + failed]
    rows_named = names + ["(unknown)"] * bool(unknown)
    columns_named = names + ["(no prediction)"] * bool(failed)
    return _draw_matrix(shown, rows_named, columns_named, title)


def draw_learning_curves(
    history: Mapping[str, Sequence[float]], title: str, *, step: str = "epoch"
) -> Figure:
    """One panel per metric, the training and the validation curve in it, the best validation step marked.

    Args:
        history: Values per step. Keras's names (`loss`, `val_loss`) and XGBoost's (`train-mlogloss`,
            `validation-mlogloss`) are told apart by their prefix.
        step: What a step is called: epoch or round.
    """
    panels = _panels(history)
    figure = _figure(5.2 * max(1, len(panels)), 3.8)
    figure.suptitle(title, fontsize=12)
    for index, (metric, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        _draw_curves(axes, metric, curves, step)
    return figure


def draw_importance(
    importance: Mapping[str, float], title: str, *, measure: str = "gain", of: str = "feature with a split"
) -> Figure:
    """The features that matter most, as bars.

    Args:
        importance: Value by name of the feature.
        measure: What the value is.
        of: What is counted: features, or columns.
    """
    top = sorted(importance.items(), key=lambda item: (-item[1], item[0]))[:TOP_FEATURES]
    figure = _figure(7, 1.5 + 0.28 * max(len(top), 3))
    axes = figure.add_subplot()
    axes.barh(range(len(top)), [value for _, value in top], color=BLUE)
    for at, (_, value) in enumerate(top):
        axes.text(max(value, 0), at, f" {value:.4g}", va="center", fontsize=8)
    names = [short(name, LONG_NAME_CHARACTERS) for name, _ in top]
    axes.set_yticks(range(len(top)), names, fontsize=8)
    axes.set_ylim(max(len(top), 1) - 0.4, -0.6)
    axes.margins(x=0.12)
    noun, _, rest = of.partition(" ")
    used = " ".join([f"{len(importance)} {noun}{'s' if len(importance) != 1 else ''}", rest]).strip()
    shown = f"; the first {len(top)}" if len(importance) > len(top) else ""
    axes.set_title(f"{title}\n{used}{shown}", fontsize=11)
    axes.set_xlabel(measure)
    _plain(axes)
    return figure


def draw_reliability(rows: pa.Table, title: str, classes: Sequence[str] = ()) -> Figure:
    """How often what has a probability happens, and how many rows have that probability.

    Of two classes the probability is that of the second, of more that of the predicted class.
    """
    confidence, right = believed(rows)
    if "score" in rows.column_names and len(classes) == 2:
        name = short(classes[1], NAME_CHARACTERS)
        happened, of = f"share that is {name}", f"predicted probability of {name}"
    else:
        happened, of = "share predicted rightly", "confidence of the prediction"
    edges = np.linspace(0, 1, RELIABILITY_BINS + 1)
    bins = bins_of(confidence)
    counts = np.bincount(bins, minlength=RELIABILITY_BINS)
    used = counts > 0
    mean = np.bincount(bins, confidence, RELIABILITY_BINS)[used] / counts[used]
    share = np.bincount(bins, right, RELIABILITY_BINS)[used] / counts[used]
    figure = _figure(5.2, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfectly calibrated")
    upper.plot(mean, share, color=BLUE, marker="o", label="model")
    upper.set(title=title, ylabel=happened, xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
    upper.legend(frameon=False)
    lower.bar(edges[:-1] + 0.05, counts, width=0.09, color=BLUE)
    lower.set(xlabel=of, ylabel="rows", ylim=(0, max(counts.max(), 1) * 1.25))
    for center, count in zip(edges[:-1] + 0.05, counts, strict=True):
        lower.text(center, count, f"{count:,}" if count else "", ha="center", va="bottom", fontsize=7)
    _plain(upper, lower)
    return figure


def _draw_matrix(
    confusion: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    cell = 0.9 if len(rows) <= 5 else 0.45
    longest = max(map(len, [*rows, *columns]))
    margin = 1.1 + 0.06 * longest
    figure = _figure(margin + 1.2 + max(cell * len(columns), 2.4), margin + cell * len(rows))
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 9 if len(rows) <= 12 else 7.5 if len(rows) <= 20 else 6.5
    for (i, j), count in np.ndenumerate(confusion):
        if count:
            color = "white" if shares[i, j] > 0.55 else "black"
            axes.text(j, i, _count(int(count)), ha="center", va="center", color=color, fontsize=size)
    slanted = longest * 0.085 > cell
    axes.set_xticks(
        range(len(columns)), columns, rotation=45 if slanted else 0, ha="right" if slanted else "center"
    )
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelsize=9 if len(rows) <= 20 else 7)
    right = int(np.trace(confusion[: len(columns), : len(columns)]))
    axes.set(xlabel="predicted", ylabel="actual")
    axes.set_title(f"{title}\n{right:,} of {int(confusion.sum()):,} rows predicted rightly", fontsize=11)
    figure.colorbar(image, ax=axes, label="share of the actual class", fraction=0.046, pad=0.03)
    return figure


def _draw_top_confusions(confusion: NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    from matplotlib.ticker import MaxNLocator

    wrong = confusion.copy()
    np.fill_diagonal(wrong[:-1, :-1], 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:TOP_CONFUSIONS]
    pairs = [np.unravel_index(cell, wrong.shape) for cell in order if wrong.flat[cell]]
    columns = [*names[:-1], "(no prediction)"]
    figure = _figure(8, 1.6 + 0.28 * max(len(pairs), 3))
    axes = figure.add_subplot()
    counts = [int(wrong[pair]) for pair in pairs]
    bars = axes.barh(range(len(pairs)), counts, color=ORANGE)
    axes.bar_label(bars, labels=[f"{count:,}" for count in counts], padding=3, fontsize=8)
    axes.set_yticks(range(len(pairs)), [f"{names[i]} → {columns[j]}" for i, j in pairs], fontsize=8)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("rows (actual → predicted)")
    axes.set_title(
        f"{title}\n{int(wrong.sum()):,} of {int(confusion.sum()):,} rows wrong; the commonest confusions",
        fontsize=11,
    )
    _plain(axes)
    return figure


def _draw_curves(axes: Axes, metric: str, curves: Mapping[str, Sequence[float]], step: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for part, values in curves.items():
        color, style = (BLUE, "-") if part == "training" else (ORANGE, "-")
        marker = "o" if len(values) <= 20 else None
        axes.plot(
            range(1, len(values) + 1), values, style, color=color, marker=marker, markersize=3, label=part
        )
    validation = np.asarray(curves.get("validation", ()), float)
    if validation.size and np.isfinite(validation).any():
        falling = not any(word in metric for word in ("accuracy", "auc", "f1", "ndcg", "map@"))
        best = int(np.nanargmin(validation) if falling else np.nanargmax(validation))
        axes.axvline(best + 1, color=GREY, linestyle=":", linewidth=1)
        axes.plot(best + 1, validation[best], "o", color=ORANGE, markersize=7, fillstyle="none")
        axes.set_title(f"best validation {validation[best]:.4g} at {step} {best + 1}", fontsize=9, color=GREY)
    axes.set(xlabel=step, ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    _plain(axes)


def _panels(history: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Sequence[float]]]:
    """{metric: {training | validation: values}}; curves without a value are left out."""
    prefixes = {"val_": "validation", "validation-": "validation", "train-": "training"}
    panels: dict[str, dict[str, Sequence[float]]] = {}
    for name, values in history.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        if len(values):
            panels.setdefault(name.removeprefix(prefix), {})[prefixes.get(prefix, "training")] = values
    return panels


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(*several: Any) -> None:
    for axes in several:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.set_axisbelow(True)


def short(name: str, characters: int) -> str:
    """A name as it can stand in a picture: in one line, not too long, and never taken for a formula."""
    text = " ".join(name.split()) or "(empty)"
    text = text.replace("$", r"\$")
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _count(count: int) -> str:
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"
