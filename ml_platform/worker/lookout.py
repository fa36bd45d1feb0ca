"""Looks, every so many steps, whether all ranks are still in one state. Imported in ranks alone."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ml_platform.errors import DivergedError
from ml_platform.worker.collective import Collective, gather_json
from ml_platform.worker.proof import prove, variables_of

if TYPE_CHECKING:
    from ml_platform.worker.fit_spec import FitSpec

SHARE = 0.01
"""Part of the time that looking may take: looks get rarer until it does."""


class BadLoss(NamedTuple):
    """A loss that is no number, and the step of its epoch, from 0. Travels as JSON."""

    step: int
    value: float


def bad_loss(value: float, step: int) -> BadLoss | None:
    """A loss as a fault; None where it is a number."""
    return None if math.isfinite(value) else BadLoss(step, value)


class Lookout:
    """Compares losses, wishes to stop and the bytes of all weights, at steps that all ranks agree on.

    Attributes:
        looks: How often it looked.
        seconds: What that cost, waiting for other ranks included.
    """

    def __init__(self, model: Any, collective: Collective, spec: FitSpec) -> None:
        self._model, self._collective, self._least = model, collective, spec.check_every_steps
        self._interval, self._steps = self._least, 0
        self._since = time.monotonic()
        self.looks, self.seconds = 0, 0.0

    def is_due(self, steps: int) -> bool:
        """Count `steps` more steps; whether it is time to look."""
        self._steps += steps
        return self._steps >= self._interval

    def look(self, bad: BadLoss | None, *, epoch: int, wants_stop: bool) -> bool:
        """Whether any rank wants to stop. Collective.

        Args:
            bad: This rank's loss, if it is no number.
            epoch: From 0, for errors.
        Raises:
            DivergedError: A rank's loss is no number.
            DesyncError: Ranks differ. It names the first variables that do.
        """
        began = time.monotonic()
        step_s = (began - self._since) / self._steps
        digest = _digest(self._model) if self._collective.size > 1 else ""
        everyone: list[list[Any]] = gather_json(
            self._collective, [bad, wants_stop, digest, self._cost_s(), step_s]
        )
        if any(of[0] for of in everyone):
            raise diverged([of[0] for of in everyone], epoch)
        if any(of[2] != digest for of in everyone):
            prove(self._model, self._collective)
        # From values that all ranks have, so that they agree on the next step to look at.
        self._interval = max(self._least, *(math.ceil(of[3] / (SHARE * of[4])) for of in everyone))
        self._steps, self._since = 0, time.monotonic()
        self.looks += 1
        self.seconds += self._since - began
        return any(of[1] for of in everyone)

    def _cost_s(self) -> float:
        return self.seconds / self.looks if self.looks else 0.0


def diverged(found: Sequence[Sequence[Any] | None], epoch: int, metric: str = "loss") -> DivergedError:
    """The error of a loss that is no number.

    It names where the first one was: averaged gradients make the next one none on every rank.

    Args:
        found: A `BadLoss` of each rank, by rank; None where it is a number.
        epoch: From 0.
    """
    step, value = min((bad for bad in found if bad is not None), key=lambda bad: int(bad[0]))
    ranks = [str(rank) for rank, bad in enumerate(found) if bad is not None and bad[0] == step]
    return DivergedError(
        f"training stopped on all ranks: in epoch {epoch + 1}, at step {step + 1}, the {metric} of "
        f"rank{'s' * (len(ranks) > 1)} {', '.join(ranks)} is {value}",
        wanted="a finite number",
        got=value,
        hint="a lower learning rate, or look for values that are infinite or not scaled",
    )


def _digest(model: Any) -> str:
    whole = hashlib.sha256()
    for variable in variables_of(model):
        whole.update(variable.numpy().tobytes())
    return whole.hexdigest()
