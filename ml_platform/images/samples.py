"""Real images to begin with: scikit-learn's handwritten digits as PNG files, in a folder per class."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

from ml_platform.errors import SpecError
from ml_platform.store.leftovers import builder
from ml_platform.store.location import home

DIGITS = "sklearn:digits"
SCALE = 4
"""The originals have 8 × 8 pixels of 17 greys."""


def image_folder(source: str) -> str:
    """Where the images of a source are: the digits are written when they are first asked for.

    Raises:
        SpecError: `sklearn:` and a name that has no images.
    """
    if source == DIGITS:
        return str(_digits())
    if source.startswith("sklearn:"):
        raise SpecError(f"no images {source!r}", wanted=f"{DIGITS}, a folder, a glob, a file or a URI")
    return source


def _digits() -> Path:
    folder = home() / "samples" / f"digits-{importlib.metadata.version('scikit-learn')}"
    if folder.exists():
        return folder
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    building = folder.parent / f".{folder.name}.{builder()}"
    digits = load_digits()
    try:
        for at, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            path = building / str(label) / f"{at:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = np.round(pixels * (255 / 16)).astype(np.uint8)
            side = grey.shape[0] * SCALE
            Image.fromarray(grey).resize((side, side), Image.Resampling.BICUBIC).save(path)
        building.rename(folder)
    except FileExistsError:  # another run was faster
        pass
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder
