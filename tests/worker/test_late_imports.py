"""What ranks import of Keras, and what waits until somebody uses it."""

from __future__ import annotations

import subprocess
import sys

RANK = """
import sys
import numpy as np
from ml_platform.worker.session import prepare_session

prepare_session(1)
import keras

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("adam", "mse")
model.fit(np.zeros((8, 2)), np.zeros(8), verbose=0)
print(sorted({"matplotlib", "sklearn"} & set(sys.modules)))
print(keras.wrappers.SKLearnClassifier.__name__, "sklearn" in sys.modules)
from keras.visualization import plot_image_gallery
print(plot_image_gallery.__name__, "matplotlib" in sys.modules, hasattr(keras.wrappers, "nothing"))
"""


def test_ranks_load_matplotlib_and_sklearn_only_for_who_uses_them() -> None:
    done = subprocess.run([sys.executable, "-c", RANK], capture_output=True, text=True, check=False)

    assert done.stdout.splitlines() == [
        "[]",
        "SKLearnClassifier True",
        "plot_image_gallery True False",
    ], done.stderr
