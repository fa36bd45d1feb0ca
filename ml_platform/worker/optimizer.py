"""Makes a compiled Keras 3 optimizer distributed: its gradients become the mean over all ranks.

Keras 3 calls `apply`; Horovod's own wrapper overrides hooks that Keras 3 no longer calls and reduces
nothing. Here the class of the optimizer is swapped in place *after* `compile`: compiled earlier, Keras
would wrap it for loss scaling, and a finite-check that each rank makes for itself lets them diverge.
Outside of a `LossScaleOptimizer` the reduction comes before its check, so all ranks skip a step together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ml_platform.errors import SpecError
from ml_platform.worker.collective import Collective


@contextmanager
def distributed(model: Any, collective: Collective, *, reduce: bool = True) -> Iterator[None]:
    """Train `model` on all ranks inside; outside it is a plain Keras model again.

    Alone nothing changes.

    Args:
        model: Compiled Keras model.
        collective: The ranks.
        reduce: False leaves gradients as they are, on each rank its own: for the tests that show that
            the proof of equal bytes then fails.
    Raises:
        SpecError: The model is not compiled.
    """
    if getattr(model, "optimizer", None) is None:
        raise SpecError("the model is not compiled", hint="call model.compile(...) before rank.fit(...)")
    if collective.size == 1:
        yield
        return
    plain, jit_compile = type(model.optimizer), model.jit_compile
    model.optimizer.__class__ = averaging(plain, collective, reduce=reduce)
    model.jit_compile = False  # Horovod's operations do not compile under XLA
    model.train_function = None
    try:
        yield
    finally:
        model.optimizer.__class__ = plain
        model.jit_compile = jit_compile
        model.train_function = None  # the traced one reduces, and would wait for ranks for good


def averaging(plain: type[Any], collective: Collective, *, reduce: bool = True) -> type[Any]:
    """A subclass of an optimizer's class that averages gradients over all ranks, then does what it did."""

    def apply(self: Any, grads: Sequence[Any], trainable_variables: Any = None) -> Any:
        # Clipping, averaging of weights and accumulation happen in the plain method: after the reduction.
        gradients = collective.average_gradients(grads) if reduce else grads
        return plain.apply(self, gradients, trainable_variables)

    # Under the plain class's name, so that a checkpoint saved meanwhile opens anywhere.
    names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__}
    return type(plain.__name__, (plain,), {**names, "apply": apply})
