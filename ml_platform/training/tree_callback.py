"""What XGBoost calls after each round on executors. Imported only where XGBoost trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import xgboost
from xgboost.callback import TrainingCallback

from ml_platform.resources.metric_stream import MetricSender, StreamAddress

PARTS = {"training": "train"}
"""XGBoost's names of the parts, where ours differ."""


class RoundSender(TrainingCallback):
    """Sends each round's metrics to the driver, from rank 0 alone: they are the same on every rank."""

    def __init__(self, address: StreamAddress) -> None:
        self.address = address
        self._sender: MetricSender | None = None

    def before_training(self, model: Any) -> Any:
        if xgboost.collective.get_rank() == 0:
            self._sender = MetricSender(self.address)
        return model

    def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
        if self._sender is not None:
            self._sender.send(last_round(evals_log), epoch)
        return False

    def after_training(self, model: Any) -> Any:
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        return model


class StopByRule(TrainingCallback):
    """Ends the training after a round at which the rule says so. Every worker sees the same losses.

    Args:
        stop: Given the validation losses up to now, whether to end.
    """

    def __init__(self, stop: Callable[[Sequence[float]], bool]) -> None:
        self.stop = stop

    def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
        losses = next(iter(evals_log["validation"].values()))
        return self.stop([float(loss) for loss in losses])


def last_round(evals_log: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """The newest value of every metric, named `part-metric`.

    >>> last_round({"training": {"mlogloss": [2.0, 1.5]}, "validation": {"mlogloss": [2.1, 1.7]}})
    {'train-mlogloss': 1.5, 'validation-mlogloss': 1.7}
    """
    return {name: float(values[-1]) for name, values in flat_history(evals_log).items()}


def flat_history(
    evals_log: Mapping[str, Mapping[str, Sequence[float]]],
) -> dict[str, list[float]]:
    """XGBoost's {part: {metric: values}} as {part-metric: values}."""
    return {
        f"{PARTS.get(part, part)}-{metric}": [float(value) for value in values]
        for part, metrics in evals_log.items()
        for metric, values in metrics.items()
    }
