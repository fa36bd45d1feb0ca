"""How a fit is described: ranges and the rate of several ranks."""

from __future__ import annotations

import numpy as np
import pytest

from ml_platform.errors import SpecError
from ml_platform.worker.warmup import warmup_rates


def test_warm_up_climbs_in_equal_steps_then_stays() -> None:
    np.testing.assert_allclose(
        warmup_rates(0.1, world_size=4, epochs=4, warmup_epochs=3), [0.1, 0.25, 0.4, 0.4]
    )
    np.testing.assert_allclose(warmup_rates(0.1, world_size=2, epochs=2, warmup_epochs=0), [0.2, 0.2])
    np.testing.assert_allclose(warmup_rates(0.1, world_size=1, epochs=3, warmup_epochs=2), [0.1] * 3)


@pytest.mark.parametrize(
    ("base_rate", "world_size", "epochs", "warmup_epochs"),
    [(0.0, 2, 4, 1), (0.1, 0, 4, 1), (0.1, 2, 0, 0), (0.1, 2, 4, 5), (0.1, 2, 4, -1)],
)
def test_impossible_warm_ups_are_refused(
    base_rate: float, world_size: int, epochs: int, warmup_epochs: int
) -> None:
    with pytest.raises(SpecError):
        warmup_rates(base_rate, world_size=world_size, epochs=epochs, warmup_epochs=warmup_epochs)
