"""Features of images as the flow of images makes them: from the store, into the store."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import exchange

from ml_platform.images.backbone import write_backbone
from ml_platform.images.features import apply_images
from ml_platform.resources.spark import open_session
from ml_platform.specs.images import BackboneSpec, Features, ImageState
from ml_platform.specs.placements import SparkPlacement
from ml_platform.specs.references import Dataset
from ml_platform.store.datasets import remove_dataset, write_dataset
from ml_platform.store.digests import file_digest
from ml_platform.store.folders import local_path

NAME = "MobileNetV3Small"
LAYERS = {1: (), 3: ("expanded_conv_4_add", "expanded_conv_7_add", "conv_1_bn")}
"""Layers that are taken, by how many; none named is the last one."""

_open = ExitStack()
_states: dict[str, tuple[Dataset, ImageState]] = {}


@lru_cache(maxsize=1)
def session() -> Any:
    return _open.enter_context(open_session(SparkPlacement(master="local[2]", driver_memory_mib=1024)))


def prepare(source: str, network: str, size: int, layers: int, images: int) -> dict[str, Any]:
    """The network's file, which others run too, and the images as a data set."""
    spec = BackboneSpec(name=NAME, weights="none", size=(size, size), layers=LAYERS[layers])
    features = write_backbone(spec, Path(network))
    frame = session().read.parquet(*sorted(map(str, Path(source).iterdir())))
    classes = tuple(f"{at:06d}" for at in range(images))
    _states[network] = (
        write_dataset(frame, name="images", label="label"),
        _state(network, features, classes),
    )
    return {"value": features.width}


def _state(network: str, features: Features, classes: tuple[str, ...]) -> ImageState:
    return ImageState(
        classes=classes,
        class_counts=(1,) * len(classes),
        label="label",
        column="content",
        vector=features,
        backbone=Path(network).as_uri(),
        backbone_digest=file_digest(Path(network)),
    )


def featurise(network: str, out: str) -> dict[str, Any]:
    """A label's code is the number of the image."""
    images, state = _states[network]
    seconds, found = exchange.timed(lambda: apply_images(session(), images, state))
    shutil.copytree(local_path(found.uri), out, ignore=shutil.ignore_patterns("*.json", "_*"))
    remove_dataset(found)
    return {"seconds": seconds, "value": found.rows}


def answer(what: str, **question: Any) -> dict[str, Any]:
    return {"featurise": featurise, "prepare": prepare}[what](**question)


if __name__ == "__main__":
    with _open:
        exchange.serve(answer)
