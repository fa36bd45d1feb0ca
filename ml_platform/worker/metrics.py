"""Values of Keras metrics over all ranks: exact, where the states of a metric can be added.

The mean of the ranks' AUCs is not the AUC of all rows. Keras' own metrics keep sums and counts, so their
states are added and the value is computed from the whole. Others are averaged by the ranks' rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from ml_platform.worker.collective import Collective, gather_json


def global_values(
    model: Any, collective: Collective, logs: Mapping[str, Any], *, rows: int
) -> dict[str, float]:
    """What Keras would have logged over the rows of all ranks, with the same bits on every rank. Collective.

    The model's metrics keep the state of this rank alone.

    Args:
        model: Compiled. Its metrics hold this rank's rows.
        logs: What Keras logged on this rank. Values that no metric of the model made are averaged over rows.
        rows: How many rows those values stand for here. A rank without rows has no say.
    """
    own = {name: float(value) for name, value in logs.items()} if rows else {}
    if collective.size > 1:
        own.update(_of_added_states(model, collective, own))
    parts: list[tuple[dict[str, float], int]] = gather_json(collective, [own, rows])
    counted = [(values, count) for values, count in parts if count]
    names = dict.fromkeys(name for values, _ in counted for name in values)
    return {
        name: _mean([(values[name], count) for values, count in counted if name in values]) for name in names
    }


def _of_added_states(model: Any, collective: Collective, own: Mapping[str, float]) -> dict[str, float]:
    variables = [variable for metric in _additive(model) for variable in metric.variables] if own else []
    before = [variable.numpy() for variable in variables]
    everyone = collective.gather(np.concatenate([np.zeros(0), *(value.ravel() for value in before)]))
    if not variables:
        return {}
    # A train_step of the user's own may log what no metric made, under the name of one.
    made = {name for name, value in _results(model).items() if own.get(name) == value}
    whole: NDArray[np.float64] = np.sum([states for states in everyone if len(states)], axis=0)
    parts = np.split(whole, np.cumsum([value.size for value in before])[:-1])
    try:
        for variable, part, value in zip(variables, parts, before, strict=True):
            variable.assign(part.reshape(value.shape).astype(value.dtype))
        return {name: value for name, value in _results(model).items() if name in made}
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


def _results(model: Any) -> dict[str, float]:
    """As `model.get_metrics_result`, less compiled metrics that no step has updated: those it refuses."""
    found: dict[str, Any] = {}
    for metric in model.metrics:
        if type(metric).__name__ == "CompileMetrics" and not metric.built:
            continue
        result = metric.result()
        found.update(result if isinstance(result, dict) else {metric.name: result})
    return {name: float(value) for name, value in found.items()}


def _additive(model: Any) -> list[Any]:
    """Metrics whose states are sums over rows: those that Keras itself updates."""
    return [metric for metric in _leaves(model) if _updated_by_keras(metric)]


def _leaves(model: Any) -> list[Any]:
    found: list[Any] = []
    for metric in model.metrics:
        parts = metric.metrics if type(metric).__name__ == "CompileMetrics" else [metric]
        found.extend(part for part in parts if not any(part is other for other in found))
    return found


def _updated_by_keras(metric: Any) -> bool:
    owner = next(kind for kind in type(metric).__mro__ if "update_state" in vars(kind))
    return owner is not keras.metrics.Metric and owner.__module__.partition(".")[0] == "keras"


def _mean(parts: list[tuple[float, int]]) -> float:
    first = parts[0][0]
    if all(value == first for value, _ in parts):
        return first  # a weighted mean of equal values may differ from them in its last bit
    return sum(value * count for value, count in parts) / sum(count for _, count in parts)
