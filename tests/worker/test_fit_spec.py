"""How a fit is described: ranges and the rate of several ranks."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ml_platform.errors import SpecError
from ml_platform.worker.collective import Alone
from ml_platform.worker.fit_spec import refuse
from ml_platform.worker.rank import Rank
from ml_platform.worker.warmup import warmup_rates


def test_whatever_fit_of_keras_takes_is_taken_or_refused_with_what_to_use_instead() -> None:
    """By the source of the installed Keras, so that an argument that a later one adds is seen."""
    ours = set(inspect.signature(Rank.fit).parameters)
    theirs = set(_arguments_of_keras_fit()) - {"self"}
    assert {"x", "epochs", "sample_weight", "validation_data"} <= theirs
    for name in sorted(theirs - ours):
        with pytest.raises(SpecError, match=f"rank.fit takes no '{name}'") as caught:
            refuse({name: None}, ours)
        assert not (caught.value.hint or "").startswith(("did you mean", "known")), name


def test_weights_of_rows_and_of_classes_together_are_refused_before_anything_is_read() -> None:
    """Keras refuses them in its first step, after the data were opened and the model was broadcast."""
    rank = Rank(Alone(), NullReporter())
    with pytest.raises(SpecError, match="weights of rows and of classes at the same time") as caught:
        rank.fit(None, "nowhere", weight="w", class_weight={0: 1.0}, batch_rows=8, epochs=1)
    assert caught.value.got == "weight='w' and class_weight={0: 1.0}"
    assert "times the weight of its class" in str(caught.value.hint)


class NullReporter:
    """Nobody listens."""

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def progress(self, message: str, done: float | None, total: float | None) -> None: ...

    def log(self, message: str) -> None: ...


def _arguments_of_keras_fit() -> list[str]:
    spec = find_spec("keras")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "src" / "trainers" / "trainer.py"
    (fit,) = (
        node
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "fit"
    )
    return [argument.arg for argument in (*fit.args.args, *fit.args.kwonlyargs)]


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
