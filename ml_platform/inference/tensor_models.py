"""Keras files and SavedModels as functions of arrays. Imported only where one is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError
from ml_platform.inference.batched import Arrays, Batched
from ml_platform.inference.binding import Input, Needs
from ml_platform.worker.session import calm_tensorflow

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TensorModel:
    """A traced function of named arrays."""

    def __init__(self, call: Any, inputs: tuple[Input, ...], outputs: tuple[str, ...]) -> None:
        import numpy as np

        self.needs = Needs(kind="tensors", inputs=inputs)
        self._outputs = outputs
        row_bytes = sum(each.width * np.dtype(each.dtype).itemsize for each in inputs)
        self._call = Batched(call, row_bytes)

    def predict(self, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name. At least one row."""
        outputs = self._call([given[each.name] for each in self.needs.inputs])
        return dict(zip(self._outputs, outputs, strict=True))


def open_keras(path: Path, signature: str) -> TensorModel:
    """A `.keras` file, without custom code.

    Raises:
        DataError: It cannot be opened, holds code, or takes input of no fixed shape.
    """
    del signature  # a Keras model has one
    calm_tensorflow()
    import keras
    import tensorflow as tf

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError) as error:
        raise DataError(
            f"{path.name} cannot be opened as a Keras model without running code of its own",
            got=error,
            hint="models with Lambda layers or classes of your own: export a SavedModel, model.export(…)",
        ) from error
    tensors = [model.inputs] if not isinstance(model.inputs, list) else model.inputs
    inputs = tuple(_input(tensor.name, tensor.shape[1:], tensor.dtype) for tensor in tensors)
    traced = tf.function(lambda *given: model(_as_taken(given), training=False), autograph=False)
    by_rows: dict[int, Any] = {}

    def call(arrays: Arrays) -> Arrays:
        given = [tf.constant(array) for array in arrays]
        rows = len(arrays[0])
        if rows not in by_rows:  # which spares looking for it at each call
            by_rows[rows] = traced.get_concrete_function(*given)
        return [output.numpy() for output in tf.nest.flatten(by_rows[rows](*given))]

    blank = [tf.zeros((1, *each.shape), each.dtype) for each in inputs]
    return TensorModel(call, inputs, _output_names(model, model(_as_taken(blank), training=False)))


def open_saved_model(path: Path, signature: str) -> TensorModel:
    """A signature of a SavedModel, which it has.

    Raises:
        DataError: It cannot be opened, or the signature takes input of no fixed shape.
    """
    calm_tensorflow()
    import tensorflow as tf

    try:
        model = tf.saved_model.load(str(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be opened as a SavedModel", got=error) from error
    function = model.signatures[signature]
    specs = function.structured_input_signature[1]
    inputs = tuple(_input(name, spec.shape[1:], spec.dtype.name) for name, spec in sorted(specs.items()))
    names = tuple(sorted(function.structured_outputs))

    def call(arrays: Arrays) -> Arrays:
        given = {each.name: tf.constant(array) for each, array in zip(inputs, arrays, strict=True)}
        # The model is named, so that its variables live as long as this function.
        assert model is not None
        outputs = function(**given)
        return [outputs[name].numpy() for name in names]

    return TensorModel(call, inputs, names)


def _as_taken(given: Sequence[Any]) -> Any:
    """One input is given as it is, several as a list."""
    return list(given) if len(given) > 1 else given[0]


def _output_names(model: Any, outputs: Any) -> tuple[str, ...]:
    """In the order in which its outputs are flattened."""
    if isinstance(outputs, dict):
        return tuple(sorted(outputs))
    count = len(outputs) if isinstance(outputs, list | tuple) else 1
    return tuple(getattr(model, "output_names", None) or map(str, range(count)))


def _input(name: str, shape: Any, dtype: str) -> Input:
    sizes = tuple(shape)
    if any(size is None for size in sizes):
        raise DataError(
            f"the model's input {name!r} has no fixed shape", wanted="sizes of one row", got=str(sizes)
        )
    return Input(name=name, shape=sizes, dtype="object" if dtype == "string" else dtype)
