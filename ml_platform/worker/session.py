"""The state that TensorFlow and Keras keep in a process: loaded once, cleared between jobs."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import Any

from ml_platform.worker.late_imports import KERAS_FOR_PEOPLE, loaded_late

_floatx = "float32"
_found: dict[str, Any] = {}
"""Of Keras, as its import and the user's own configuration left it."""


def import_libraries(*, horovod: bool) -> None:
    """Import what every job needs, and nothing of it runs yet: no thread of TensorFlow, no device."""
    gc.disable()  # half a million objects that stay: looking through them is a fifth of the time
    import cloudpickle  # type: ignore[import-untyped]  # noqa: F401

    with loaded_late(KERAS_FOR_PEOPLE):
        import keras
    import pyarrow.parquet  # noqa: F401
    import tensorflow as tf  # noqa: F401

    if horovod:
        importlib.import_module("horovod.tensorflow")
    assert keras.config.floatx() == _floatx
    if not _found:
        _found.update(epsilon=keras.config.epsilon(), image_data_format=keras.config.image_data_format())
    # What the imports left never becomes garbage; without it clearing takes 15 ms instead of 500. The garbage
    # among it is too little to look for: that takes another tenth of the time.
    gc.freeze()
    gc.enable()


def prepare_session(world_size: int) -> None:
    """Make this process ready for jobs, where `import_libraries` was called before or not."""
    import_libraries(horovod=world_size > 1)
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)


def clear_session() -> None:
    """Bring Keras back to what it was after its import. Called while the rank waits for its next job."""
    if "keras" not in sys.modules:
        return
    import keras
    import tensorflow as tf

    keras.backend.clear_session()  # does not reset what follows
    keras.config.set_floatx(_floatx)
    keras.config.set_dtype_policy(_floatx)
    for name, value in _found.items():
        getattr(keras.config, f"set_{name}")(value)
    tf.config.run_functions_eagerly(False)


def quiet_tensorflow() -> None:
    """Where TensorFlow is not imported yet, keep it to errors."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def calm_tensorflow() -> None:
    """One thread and no chatter, where TensorFlow has not started yet: Spark has a process per core."""
    quiet_tensorflow()
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        return  # it runs already, with the threads that the process chose
