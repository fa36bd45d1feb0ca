"""What a study found: the best trial of a family, and a leaderboard of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ml_platform.errors import DataError
from ml_platform.specs.tuning import Trial

SHOWN_REASONS = 5


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The complete trial with the lowest validation loss; the first of equals.

    Raises:
        DataError: No trial is complete. Says why each kind of them is not.
    """
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    if not complete:
        reasons = Counter(f"{trial.state}: {trial.reason}" for trial in trials)
        raise DataError(
            f"no trial of {trials[0].family if trials else 'the study'} gave a model",
            wanted="at least one trial with a validation loss",
            got=f"{len(trials)} trials without one",
            evidence="\n".join(f"{count} × {reason}" for reason, count in reasons.most_common(SHOWN_REASONS)),
            hint="a narrower search space: lower rates, smaller networks; or leave the family out",
        )
    return min(complete, key=lambda trial: trial.value or 0.0)


def ranked(trials: Sequence[Trial]) -> list[tuple[int, Trial]]:
    """Numbers and trials, the best first; those that were ended or failed after them, by number."""
    order = {"complete": 0, "pruned": 1, "failed": 2, "not run": 3}

    def place(numbered: tuple[int, Trial]) -> tuple[int, float, int]:
        number, trial = numbered
        return order[trial.state], trial.value if trial.value is not None else 0.0, number

    return sorted(enumerate(trials, 1), key=place)
