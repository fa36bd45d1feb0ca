"""The learning rate of synchronous training on several ranks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml_platform.errors import SpecError


def warmup_rates(
    base_rate: float, *, world_size: int, epochs: int, warmup_epochs: int = 5
) -> NDArray[np.float64]:
    """Learning rate of each epoch for synchronous training on `world_size` ranks.

    Climbs in equal steps from `base_rate` to `base_rate * world_size`, then stays there.

    Args:
        base_rate: Rate tuned on one rank, per optimizer step. Greater than 0.
        world_size: Ranks that average gradients.
        epochs: Length of the schedule, in passes over the training table.
        warmup_epochs: Epochs spent climbing. 0 starts at the full rate.
    Returns:
        Shape (epochs,), float64, in the unit of `base_rate`.
    Raises:
        SpecError: A value is out of its range, or the warm-up outlasts the schedule.
    Source: Goyal et al. 2017, arXiv:1706.02677, sections 2.1-2.2.

    >>> warmup_rates(0.1, world_size=4, epochs=4, warmup_epochs=3).tolist()
    [0.1, 0.25, 0.4, 0.4]
    """
    if base_rate <= 0 or world_size < 1 or epochs < 1:
        raise SpecError(
            "there is no warm-up for these values",
            wanted="a rate above 0, at least one rank and one epoch",
            got=f"base_rate={base_rate}, world_size={world_size}, epochs={epochs}",
        )
    if not 0 <= warmup_epochs <= epochs:
        raise SpecError(
            "the warm-up outlasts the schedule",
            wanted=f"warmup_epochs from 0 to epochs={epochs}",
            got=f"warmup_epochs={warmup_epochs}",
        )
    climbing = np.linspace(base_rate, base_rate * world_size, warmup_epochs)
    return np.concatenate([climbing, np.full(epochs - warmup_epochs, base_rate * world_size)])
