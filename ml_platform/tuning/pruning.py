"""Whether a trial that has come so far is worth going on with: Optuna's pruners, wherever the trial runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ml_platform.specs.tuning import Pruner, Trial
from ml_platform.tuning.sampling import quiet

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 5
"""Complete trials before any is ended."""
WARMUP_SHARE = 0.25
"""Part of the steps that every trial may take: what learns slowly is behind at first."""

PERCENTILES: dict[Pruner, float] = {"median": 50.0, "quartile": 25.0}
"""How many of a hundred others must be better at a step for a trial to end there."""

Stop = Callable[[Sequence[float]], bool]
"""Whether to end, given the validation losses up to now. Asked once a step, on ranks and executors."""


def stop_rule(pruner: Pruner, rivals: Sequence[Trial], *, steps: int) -> Stop | None:
    """The rule of a trial among others; None where none could ever be ended.

    Args:
        rivals: Earlier trials.
        steps: Epochs or rounds that the trial has at most.
    """
    curves = tuple(trial.curve for trial in rivals if trial.state == "complete" and trial.curve)
    if pruner == "none" or len(curves) < STARTUP_TRIALS:
        return None
    return AmongRivals(PERCENTILES[pruner], curves, round(WARMUP_SHARE * steps))


class AmongRivals:
    """Ends what is worse than `percentile` of a hundred rivals were at the same step."""

    def __init__(self, percentile: float, curves: tuple[tuple[float, ...], ...], warmup: int) -> None:
        self.percentile = percentile
        self.curves = curves
        self.warmup = warmup

    def __call__(self, curve: Sequence[float]) -> bool:
        with quiet():
            trial = self._memory().ask()
            for step, loss in enumerate(curve):
                trial.report(loss, step)
            return trial.should_prune()

    def _memory(self) -> optuna.Study:
        import optuna

        pruner = optuna.pruners.PercentilePruner(
            self.percentile, n_startup_trials=STARTUP_TRIALS, n_warmup_steps=self.warmup
        )
        memory = optuna.create_study(pruner=pruner)
        memory.add_trials(
            [
                optuna.trial.create_trial(value=min(curve), intermediate_values=dict(enumerate(curve)))
                for curve in self.curves
            ]
        )
        return memory
