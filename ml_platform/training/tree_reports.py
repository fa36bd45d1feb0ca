"""What boosted trees leave in a tracking run: which features mattered, as a picture and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ml_platform.evaluation.pictures import draw_importance
from ml_platform.specs.tracking import TrackingRun


def log_importance(
    run: TrackingRun, importance: Mapping[str, Mapping[int, float]], names: Sequence[str], title: str
) -> None:
    """`importance.png` by gain, and `importance.json` with gain, cover and weight of each feature.

    Args:
        importance: As in `Trees`: value by number of the feature, for each measure.
        names: Of all features, by number.
    """
    gain = {names[number]: value for number, value in importance["gain"].items()}
    run.log_figure(draw_importance(gain, title, measure="gain per split"), "importance.png")
    run.log_table(importance_table(importance, names), "importance.json")


def importance_table(
    importance: Mapping[str, Mapping[int, float]], names: Sequence[str]
) -> dict[str, list[object]]:
    """A row per feature that any tree splits on, the most important first.

    >>> importance_table({"gain": {1: 2.0, 0: 3.0}, "weight": {1: 5.0, 0: 4.0}}, ["age", "size"])
    {'feature': ['age', 'size'], 'gain': [3.0, 2.0], 'weight': [4.0, 5.0]}
    """
    order = sorted(importance["gain"], key=lambda number: (-importance["gain"][number], number))
    table: dict[str, list[object]] = {"feature": [names[number] for number in order]}
    for measure, values in importance.items():
        table[measure] = [values.get(number, 0.0) for number in order]
    return table
