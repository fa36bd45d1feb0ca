"""`import horovod.tensorflow.keras as hvd` with Keras 3.

Horovod's own wrapper overrides hooks that Keras 3 no longer calls: it compiles, fits, and reduces no
gradient. While `main` of `HorovodRunner` runs, what such code calls does what it promises; what cannot is
refused. Afterwards Horovod is what it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

from ml_platform.errors import SpecError
from ml_platform.worker.collective import Collective
from ml_platform.worker.optimizer import averaging
from ml_platform.worker.proof import prove_alike

_ABSENT = object()
_ONLY_DEFAULTS = ("compression", "sparse_as_dense", "gradient_predivide_factor", "op", "process_set")
"""Options of `hvd.DistributedOptimizer` that change what is computed, and that are not offered."""


@contextmanager
def mended_horovod(collective: Collective) -> Iterator[None]:
    """Inside, `hvd.DistributedOptimizer`, its callbacks and `hvd.broadcast_variables` work with Keras 3.

    Raises:
        DesyncError: At the end, optimizers that nothing proved yet hold different bytes on the ranks.
    """
    if find_spec("horovod") is None:
        yield
        return
    mended = _Mended(collective)
    with ExitStack() as stack:
        for owner, names in mended.replacements():
            stack.enter_context(_replaced(owner, names))
        yield
        mended.prove_the_rest()


class _Mended:
    """What stands in for the parts of Horovod that Keras 3 goes past."""

    def __init__(self, collective: Collective) -> None:
        import horovod._keras as stock
        import horovod.tensorflow as hvd

        self._collective = collective
        self._hvd, self._stock = hvd, stock
        self._signature = inspect.signature(stock.create_distributed_optimizer)
        self._distributed: list[Any] = []
        self._unproven: list[Any] = []

    def replacements(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """(module or class, {name: what it is meanwhile}). Below the names that user code has imported."""
        from horovod._keras import callbacks

        yield (
            self._stock,
            {"create_distributed_optimizer": self._optimizer, "load_model": self._load_model},
        )
        yield callbacks.BroadcastGlobalVariablesCallbackImpl, self._broadcasting()
        yield callbacks.MetricAverageCallbackImpl, {"_average_metrics_in_place": self._averaging_metrics()}
        yield callbacks.LearningRateScheduleCallbackImpl, _learning_rate()
        yield callbacks.LearningRateWarmupCallbackImpl, {"on_epoch_end": _warmed_up}
        yield (
            self._hvd,
            {
                "broadcast_variables": _on_values(self._hvd.broadcast_variables),
                "DistributedGradientTape": _tape_on_values(self._hvd.DistributedGradientTape),
            },
        )

    def _optimizer(self, *args: Any, **kwargs: Any) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        self._check(bound.arguments)
        return self._distribute(bound.arguments["optimizer"])

    def _distribute(self, optimizer: Any) -> Any:
        import keras

        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if keras.config.dtype_policy().name == "mixed_float16" and not scaled:
            # Keras would do it in `compile`, inside of which ranks would skip steps each for itself.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        if self._collective.size > 1 and not self._is_distributed(optimizer):
            optimizer.__class__ = averaging(type(optimizer), self._collective)
            self._unproven.append(optimizer)
        self._distributed.append(optimizer)
        return optimizer

    def _is_distributed(self, optimizer: Any) -> bool:
        return any(known is optimizer for known in self._distributed)

    def _check(self, given: Mapping[str, Any]) -> None:
        if given["backward_passes_per_step"] != 1:
            raise SpecError(
                "hvd.DistributedOptimizer(backward_passes_per_step=…) does not work with Keras 3",
                wanted=1,
                got=given["backward_passes_per_step"],
                hint="Adam(gradient_accumulation_steps=…), or the same of another optimizer of Keras",
            )
        usual = {
            "compression": self._hvd.Compression.none,
            "sparse_as_dense": False,
            "gradient_predivide_factor": 1.0,
            "op": self._hvd.Average,
            "process_set": self._hvd.global_process_set,
        }
        for name in _ONLY_DEFAULTS:
            if given[name] != usual[name]:
                raise SpecError(
                    f"hvd.DistributedOptimizer({name}=…) does not work with Keras 3",
                    wanted="nothing: gradients are averaged over all ranks, sparse ones stay sparse",
                    got=given[name],
                    hint=f"leave {name} out",
                )

    def _load_model(
        self,
        keras: Any,
        wrap_optimizer: Any,
        filepath: Any,
        custom_optimizers: Any = None,
        custom_objects: Any = None,
        legacy_opts: bool = False,
    ) -> Any:
        named = {cls.__name__: cls for cls in custom_optimizers or ()}
        model = keras.models.load_model(filepath, custom_objects={**named, **(custom_objects or {})})
        if model.optimizer is not None:
            model.optimizer = self._distribute(model.optimizer)
        return model

    def _broadcasting(self) -> dict[str, Any]:
        def start(callback: Any) -> None:
            self._broadcast(callback.model, callback.root_rank)
            callback.broadcast_done = True

        def on_train_begin(callback: Any, logs: Any = None) -> None:
            self._begin(callback.model)
            callback.broadcast_done = False
            if callback.model.built:
                start(callback)

        def on_train_end(callback: Any, logs: Any = None) -> None:
            self._prove(callback.model.optimizer, callback.model.trainable_variables)

        def on_batch_end(callback: Any, batch: int, logs: Any = None) -> None:
            if not callback.broadcast_done:  # a model that learns its shapes from the first batch
                start(callback)

        return {"on_train_begin": on_train_begin, "on_train_end": on_train_end, "on_batch_end": on_batch_end}

    def _begin(self, model: Any) -> None:
        if self._collective.size == 1:
            return
        optimizer = model.optimizer
        if not self._is_distributed(optimizer):
            raise SpecError(
                "ranks would train each for itself: the optimizer of the model is not distributed",
                wanted="model.compile(hvd.DistributedOptimizer(…)), after any change of the dtype policy",
                got=f"a plain {type(optimizer).__name__}",
            )
        if not any(known is optimizer for known in self._unproven):
            self._unproven.append(optimizer)
        if model.jit_compile:  # Horovod's operations do not compile under XLA
            model.jit_compile = False
            model.make_train_function(force=True)

    def _broadcast(self, model: Any, root_rank: int) -> None:
        optimizer = model.optimizer
        if self._collective.size > 1:
            if not optimizer.built:
                optimizer.build(model.trainable_variables)
            self._hvd.broadcast_variables([*model.variables, *optimizer.variables], root_rank=root_rank)

    def _averaging_metrics(self) -> Any:
        def average(callback: Any, logs: dict[str, Any] | None) -> None:
            from ml_platform.worker.collective import total

            logs = {} if logs is None else logs
            names = sorted(logs)
            sums = total(self._collective, [float(logs[name]) for name in names])
            logs.update(zip(names, (sums / self._collective.size).tolist(), strict=True))

        return average

    def _prove(self, optimizer: Any, trained: Iterable[Any]) -> None:
        if self._collective.size > 1:
            prove_alike([*trained, *optimizer.variables], self._collective)
        self._unproven = [other for other in self._unproven if other is not optimizer]

    def prove_the_rest(self) -> None:
        """Of loops of the user's own, and of fits without the broadcast callback."""
        if not self._hvd.is_initialized():
            return  # the user's code has left the other ranks
        variables = [
            variable
            for optimizer in self._unproven
            for variable in (*getattr(optimizer, "_trainable_variables", ()), *optimizer.variables)
        ]
        if self._collective.size > 1:
            prove_alike(variables, self._collective)  # once: ranks may have made different numbers of them


def _on_values(broadcast_variables: Any) -> Any:
    def broadcast(variables: Iterable[Any], root_rank: int, **options: Any) -> Any:
        return broadcast_variables(_values(variables), root_rank, **options)

    return broadcast


def _tape_on_values(distributed_tape: Any) -> Any:
    def make(*args: Any, **kwargs: Any) -> Any:
        tape = distributed_tape(*args, **kwargs)
        plain = tape.gradient

        def gradient(target: Any, sources: Iterable[Any], *rest: Any, **options: Any) -> Any:
            return plain(target, _values(sources), *rest, **options)

        tape.gradient = gradient
        return tape

    return make


def _values(variables: Iterable[Any]) -> list[Any]:
    """TensorFlow's variables below those of Keras, without seeds of random layers: each rank has its own."""
    import keras

    return [
        variable.value if isinstance(variable, keras.Variable) else variable
        for variable in variables
        if not getattr(variable, "path", "").endswith("seed_generator_state")
    ]


def _learning_rate() -> dict[str, Any]:
    def adjust(callback: Any, epoch: float) -> None:
        # Without the correction of momentum: in Keras 3 it is a constant of the compiled step.
        callback.model.optimizer.learning_rate = callback.initial_lr * callback.multiplier(epoch)

    def on_epoch_end(callback: Any, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["lr"] = float(callback.model.optimizer.learning_rate)

    return {"_adjust_learning_rate": adjust, "on_epoch_end": on_epoch_end}


def _warmed_up(callback: Any, epoch: int, logs: dict[str, Any] | None = None) -> None:
    rate = float(callback.model.optimizer.learning_rate)
    if logs is not None:
        logs["lr"] = rate
    if epoch == callback.end_epoch - 1 and callback.verbose:
        print(f"epoch {epoch + 1}: the learning rate is warmed up to {rate:g}", flush=True)


@contextmanager
def _replaced(owner: Any, names: Mapping[str, Any]) -> Iterator[None]:
    """Attributes of a module or class that are others for the time of a block."""
    before = {name: vars(owner).get(name, _ABSENT) for name in names}
    for name, value in names.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            delattr(owner, name) if value is _ABSENT else setattr(owner, name, value)
