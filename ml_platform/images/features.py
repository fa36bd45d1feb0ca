"""Images as features of a model: fitted on the training part, applied on Spark and inside the model alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_platform.data.classes import class_counts
from ml_platform.errors import DataError
from ml_platform.features.apply import encode_labels
from ml_platform.features.labels import natural_order
from ml_platform.features.write import FEATURES, LABEL, packed_array
from ml_platform.images.backbone import keep_file, write_backbone
from ml_platform.images.decode import decode
from ml_platform.images.featurise import Backbone, colours, forward, open_network, opened, resized
from ml_platform.resources.spark_daemon import TENSORFLOW, forked_with
from ml_platform.specs.images import PIXELS, BackboneSpec, ImageSpec, ImageState
from ml_platform.specs.references import Dataset
from ml_platform.store.datasets import spark_frame, write_dataset
from ml_platform.store.digests import file_digest
from ml_platform.store.folders import local_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONTENT = "content"
BATCH_IMAGES = 512
"""Encoded images that a worker holds at once: four calls of a network of small ones, or more."""


def fit_images(train: Dataset, spec: BackboneSpec) -> ImageState:
    """The classes of the training part, and the network that turns its images into features.

    Raises:
        DataError: Images without a class, or a network that cannot be opened.
        SpecError, InfrastructureError: As `write_backbone`.
    """
    label = train.contract.label
    if label is None or train.contract[label].nullable:
        raise DataError(
            "images without a class cannot be learnt from",
            wanted="each image in a folder that is named after its class",
            hint="name the folder above the classes' folders, and keep no image beside them",
        )
    counts = class_counts(train, label)
    classes = natural_order(counts)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "backbone.keras")
        features = write_backbone(spec, file)
        digest = file_digest(file)
        kept = keep_file(file, digest)
    return ImageState(
        classes=tuple(classes),
        class_counts=tuple(counts[name] for name in classes),
        label=label,
        column=CONTENT,
        vector=features,
        backbone=kept.as_uri(),
        backbone_digest=digest,
    )


def as_pixels(state: ImageState) -> ImageState:
    """The same images as pixels, of the size that its network takes: what learns end to end sees them."""
    if tuple(state.vector.layers) == (PIXELS,):
        return state
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "backbone.keras")
        features = write_backbone(BackboneSpec(size=state.vector.size), file)
        digest = file_digest(file)
        kept = keep_file(file, digest)
    changed = {"vector": features, "backbone": kept.as_uri(), "backbone_digest": digest}
    return state.model_copy(update=changed)


def apply_images(spark: SparkSession, part: Dataset, state: ImageState) -> Dataset:
    """Features and label codes of every image.

    Returns:
        A data set with `label` (int32: index in `state.classes`) and `features` (packed).
    Raises:
        StoreError: The network's file is gone, or an image cannot be decoded any more.
    """
    content = spark.sparkContext.broadcast(local_path(state.backbone).read_bytes())
    applier = _Applier(Backbone(state.backbone_digest, state.vector, content), state)
    session = spark.newSession()  # Spark counts rows, and these are large
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH_IMAGES))
    frame = spark_frame(session, part).select(state.column, state.label)
    with forked_with(TENSORFLOW):
        applied = frame.mapInArrow(applier, f"{LABEL} int, {FEATURES} binary")
    name = f"{part.uri.split('/')[-2]}-features"
    return write_dataset(applied, name=name, label=LABEL, packed={FEATURES: state.width})


def image_transform(file: Path, state: ImageState) -> Callable[[pa.Table], NDArray[np.float32]]:
    """Encoded images to features, as `apply_images` makes them: what a model runs before its own network.

    Args:
        file: The backbone.
    Returns:
        A function of a table with the state's column; shape (rows, state.width). It raises DataError where an
        image cannot be decoded.
    Raises:
        DataError: The file is not the one that the state was fitted with.
    """
    if file_digest(file) != state.backbone_digest:
        raise DataError(f"{file} is not the backbone that the model was trained with")
    return partial(_transform, open_network(file, state.vector), state)


def _transform(
    network: Callable[[Any], Any], state: ImageState, batch: pa.Table | pa.RecordBatch
) -> NDArray[np.float32]:
    spec = ImageSpec(size=state.vector.size)
    contents = batch.column(state.column).to_pylist()
    rows = list(forward(network, (_decoded(content, spec) for content in contents), state.vector))
    return np.concatenate(rows) if rows else np.empty((0, state.width), np.float32)


def _decoded(content: bytes | None, spec: ImageSpec) -> NDArray[np.uint8]:
    """R G B, of the network's size."""
    if content is None:
        raise DataError("no image", got="null")
    size = spec.size or (1, 1)
    return resized(colours(decode(content, spec)), size)[:, :, ::-1]


@dataclass(frozen=True)
class _Applier:
    """What runs on executors."""

    backbone: Backbone
    state: ImageState

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        transform = partial(_transform, opened(self.backbone), self.state)
        for batch in batches:
            labels = pa.array(encode_labels(batch.column(self.state.label), self.state), pa.int32())
            columns = [labels, packed_array(transform(batch)).cast(pa.binary())]
            yield pa.RecordBatch.from_arrays(columns, [LABEL, FEATURES])
