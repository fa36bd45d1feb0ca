"""How `rank.fit` trains, as a value; and what Keras' `fit` takes that it cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ml_platform.errors import SpecError, nearest

CHECK_STEPS = 100
"""Steps between two looks at what ranks must have in common, at least."""

_INSTEAD: Mapping[str, str] = {
    "x": "pass the data set as `train`",
    "y": "name the column with `label`",
    "batch_size": "`batch_rows` counts the rows of all ranks together",
    "validation_data": "pass a data set as `validation`",
    "validation_split": "pass a data set as `validation`",
    "validation_steps": "validation reads each row once",
    "validation_batch_size": "validation reads each row once, in batches of its own",
    "sample_weight": "name a column of the data set with `weight`",
}


@dataclass(frozen=True)
class FitSpec:
    """How `rank.fit` trains; its arguments say what each field means.

    Raises:
        SpecError: A value is out of its range.
    """

    batch_rows: int
    epochs: int
    initial_epoch: int = 0
    steps_per_epoch: int | None = None
    seed: int = 0
    shuffle: bool = True
    patience: int | None = None
    validation_freq: int = 1
    class_weight: Mapping[int, float] | None = None
    warmup_epochs: int | None = None
    verbose: int = 0
    record_steps: bool = False
    check_every_steps: int = CHECK_STEPS
    checkpoint_every_epochs: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_rows", "epochs", "validation_freq", "check_every_steps"):
            self._at_least(name, 1)
        for name in ("steps_per_epoch", "patience", "checkpoint_every_epochs"):
            if getattr(self, name) is not None:
                self._at_least(name, 1)
        self._at_least("initial_epoch", 0)
        if self.initial_epoch >= self.epochs:
            raise SpecError(
                "there is no epoch to train",
                wanted=f"initial_epoch below epochs={self.epochs}",
                got=f"initial_epoch={self.initial_epoch}",
            )
        if self.warmup_epochs is not None and not 0 <= self.warmup_epochs <= self.epochs:
            raise SpecError(
                "the warm-up outlasts the fit",
                wanted=f"warmup_epochs from 0 to epochs={self.epochs}",
                got=f"warmup_epochs={self.warmup_epochs}",
            )

    def _at_least(self, name: str, least: int) -> None:
        if getattr(self, name) < least:
            raise SpecError(
                f"{name} is too small", wanted=f"at least {least}", got=f"{name}={getattr(self, name)}"
            )


def refuse(options: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse arguments that `rank.fit` does not take, with what to use instead.

    Raises:
        SpecError: There is one.
    """
    for name in options:
        raise SpecError(f"rank.fit takes no {name!r}", hint=_INSTEAD.get(name) or nearest(name, known))


def refuse_both_weights(weight: str | None, class_weight: Mapping[int, float] | None) -> None:
    """Refuse what Keras' `fit` would in its first step.

    Raises:
        SpecError: Both are given.
    """
    if weight is not None and class_weight is not None:
        raise SpecError(
            "rank.fit takes no weights of rows and of classes at the same time",
            wanted="one of `weight` and `class_weight`, as Keras has it",
            got=f"weight={weight!r} and class_weight={dict(class_weight)}",
            hint="multiply them in the column: each row's weight times the weight of its class",
        )
