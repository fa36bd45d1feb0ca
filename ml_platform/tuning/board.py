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
    complete = _complete(trials)
    if not complete:
        raise no_model(trials)
    return min(complete, key=lambda trial: trial.value or 0.0)


def any_complete(trials: Sequence[Trial]) -> bool:
    """Whether there is a best trial."""
    return bool(_complete(trials))


def reasons(trials: Sequence[Trial]) -> list[str]:
    """Why trials gave no model, the most common reason first."""
    counted = Counter(f"{trial.state}: {trial.reason}" for trial in trials if not _complete([trial]))
    return [f"{count} × {reason}" for reason, count in counted.most_common(SHOWN_REASONS)]


def no_model(trials: Sequence[Trial]) -> DataError:
    """What to raise where no trial of one family, or of several, is complete."""
    by_family: dict[str, list[Trial]] = {}
    for trial in trials:
        by_family.setdefault(trial.family, []).append(trial)
    said = [f"{family}: {reason}" for family, tried in by_family.items() for reason in reasons(tried)]
    return DataError(
        f"no trial of {' or '.join(by_family) or 'the study'} gave a model",
        wanted="at least one trial with a validation loss",
        got=f"{len(trials)} trials without one",
        evidence="\n".join(said),
        hint="a narrower search space: lower rates, smaller networks; or leave the family out",
    )


def searched_seconds(trials: Sequence[Trial]) -> float:
    """Wall-clock time in which trials ran: side by side it counts once, a pause of the study not at all."""
    total = end = 0.0
    for began, ended in sorted((trial.began, trial.began + trial.seconds) for trial in trials):
        total += max(0.0, ended - max(began, end))
        end = max(end, ended)
    return total


def _complete(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.state == "complete" and trial.value is not None]


def ranked(trials: Sequence[Trial]) -> list[tuple[int, Trial]]:
    """Numbers and trials, the best first; those that were ended or failed after them, by number."""
    order = {"complete": 0, "pruned": 1, "failed": 2, "not run": 3}

    def place(numbered: tuple[int, Trial]) -> tuple[int, float, int]:
        number, trial = numbered
        return order[trial.state], trial.value if trial.value is not None else 0.0, number

    return sorted(enumerate(trials, 1), key=place)
