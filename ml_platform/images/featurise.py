"""Features of images on Spark: one function over image structs, run in batches by a traced network."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError, SpecError
from ml_platform.images.backbone import write_backbone
from ml_platform.images.schema import FIELDS, image_pixels
from ml_platform.resources.process_wide import heard
from ml_platform.resources.spark_daemon import TENSORFLOW, forked_with
from ml_platform.specs.images import BackboneSpec, Features
from ml_platform.store.digests import file_digest
from ml_platform.worker.session import calm_tensorflow

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.accumulators import Accumulator
    from pyspark.sql import Column, SparkSession

BATCH_BYTES = 16 << 20
"""Of pixels that the network gets in one call, as long as these are 32 to 128 images."""
KEPT = 2
"""Networks that a worker process keeps open."""

Preprocess = Callable[["NDArray[np.uint8]"], "NDArray[Any]"]


@cache
def _networks() -> OrderedDict[str, Callable[[Any], Any]]:
    """Those of this process. Behind a function: what it holds at the moment is no part of a key."""
    return OrderedDict()


@dataclass(frozen=True)
class Backbone:
    """A network on its way to executors: its digest, what it gives, and a broadcast of its file."""

    digest: str
    features: Features
    content: Any

    def function(
        self,
        preprocess: Preprocess | None = None,
        refused: Accumulator[int] | None = None,
        name: str = "a backbone's function",
    ) -> Callable[[Column | str], Column]:
        """A function of image structs: an array of float32, or null where the struct is null.

        Images of another size are resized; grey ones are taken as colours, alpha is dropped.

        Args:
            preprocess: Called with each image before; takes and gives R G B, shape (height, width, 3), uint8
                and any numbers. What it gives reaches the network as float32, never rounded.
            refused: Counts images that cannot be taken, whose arrays are null. None: the first one raises.
            name: What errors call it.
        """
        from pyspark.sql.pandas.functions import ArrowUDFType, arrow_udf

        with heard():  # that there are no type hints, which would have to import Arrow at the top
            return arrow_udf(
                _Featuriser(self, preprocess, refused, name), "array<float>", ArrowUDFType.SCALAR_ITER
            )

    def column(self, image: Column | str) -> Column:
        """Features of a column of image structs; see `function`."""
        with forked_with(TENSORFLOW):
            return self.function()(image)


def ship_backbone(spark: SparkSession, spec: BackboneSpec) -> Backbone:
    """Build a backbone and hand it to all executors.

    Raises:
        SpecError, DataError, InfrastructureError: As `write_backbone`.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "backbone.keras")
        features = write_backbone(spec, file)
        content = file.read_bytes()
        return Backbone(file_digest(file), features, spark.sparkContext.broadcast(content))


def forward(
    network: Callable[[Any], Any], images: Iterator[NDArray[Any]], features: Features
) -> Iterator[NDArray[np.float32]]:
    """Feature vectors, a batch at a time.

    Args:
        images: R G B, of the network's size.
    Returns:
        Shapes (rows, width); at most `batch_images(features)` rows.
    """
    import numpy as np

    height, width = features.size
    most = batch_images(features)
    batch = np.zeros((most, height, width, 3), np.float32)
    filled = 0
    for image in images:
        batch[filled] = image
        filled += 1
        if filled == most:
            yield network(batch).numpy()
            filled = 0
    if filled:
        yield network(batch[:filled]).numpy()


def batch_images(features: Features) -> int:
    """Images of one call: more of small ones, which keep a processor busy only together."""
    height, width = features.size
    fitting = BATCH_BYTES // (height * width * 3 * 4)
    return max(32, min(128, fitting - fitting % 32))


def open_network(file: Path, features: Features) -> Callable[[Any], Any]:
    """The network of a file that `write_backbone` wrote, traced once for any number of images."""
    calm_tensorflow()
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(file, compile=False, safe_mode=True)
    signature = [tf.TensorSpec([None, *features.size, 3], tf.float32)]
    traced: Callable[[Any], Any] = tf.function(
        lambda pixels: model(pixels, training=False), input_signature=signature, autograph=False
    )
    return traced


@dataclass(frozen=True)
class _Featuriser:
    """What runs on executors: arrays of image structs in, arrays of vectors out."""

    backbone: Backbone
    preprocess: Preprocess | None
    refused: Accumulator[int] | None
    name: str

    def __call__(self, batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        import numpy as np
        import pyarrow as pa

        network, features = opened(self.backbone), self.backbone.features
        for given in batches:
            batch = image_structs(given, self.name)
            there = batch.is_valid().to_numpy(zero_copy_only=False).copy()
            rows = list(forward(network, self._images(batch, there), features))
            values = np.concatenate(rows) if rows else np.empty((0, features.width), np.float32)
            lengths = np.where(there, features.width, 0)
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            yield pa.ListArray.from_arrays(offsets, pa.array(values.ravel()), mask=pa.array(~there))

    def _images(self, batch: pa.Array, there: NDArray[np.bool_]) -> Iterator[NDArray[Any]]:
        """Those that are there; `there` becomes false for one that cannot be taken."""
        for at in there.nonzero()[0]:
            try:
                yield network_input(batch[at], self.backbone.features, self.preprocess)
            except Exception:  # whatever a person's code raises
                if self.refused is None:
                    raise
                there[at] = False
                self.refused.add(1)


def image_structs(given: pa.Array | tuple[pa.Array, ...], function: str) -> pa.Array:
    """The one argument of a function of images.

    Raises:
        SpecError: It is no column of image structs, or not the only one. One line: the last that Spark shows.
    """
    import pyarrow as pa

    arguments = given if isinstance(given, tuple) else (given,)
    (kind, *more) = [argument.type for argument in arguments]
    is_image = pa.types.is_struct(kind) and {field.name for field in kind} >= {*FIELDS}
    if not more and (is_image or pa.types.is_null(kind)):
        return arguments[0]
    got = f"{len(arguments)} arguments" if more else str(kind)
    raise SpecError(
        f"{function}(image) takes one image struct ({', '.join(FIELDS)}), as read_images and Spark's own "
        f"image source give it; it was given {got}"
    )


def network_input(
    struct: pa.StructScalar, features: Features, preprocess: Preprocess | None
) -> NDArray[np.generic]:
    """R G B of an image struct, as the network takes it. Raises what the preprocessor raises.

    Raises:
        DataError: The struct is no image, or the preprocessor gives another shape.
    """
    import numpy as np

    pixels = image_pixels({name: struct[name].as_py() for name in FIELDS})
    if preprocess is None:
        return resized(colours(pixels), features.size)[:, :, ::-1]
    given = np.asarray(preprocess(colours(pixels)[:, :, ::-1]), np.float32)
    wanted = (*features.size, 3)
    if given.shape != wanted:
        raise DataError("the preprocessor gives images of another shape", wanted=wanted, got=given.shape)
    return given


def colours(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Three channels: grey ones repeated, alpha dropped."""
    import numpy as np

    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Of this height and width."""
    if pixels.shape[:2] == size:
        return pixels
    import numpy as np
    from PIL import Image

    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def opened(backbone: Backbone) -> Callable[[Any], Any]:
    """The network, from this process's cache or from the broadcast."""
    if backbone.digest not in _networks():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "backbone.keras")
            file.write_bytes(backbone.content.value)
            _networks()[backbone.digest] = open_network(file, backbone.features)
        while len(_networks()) > KEPT:
            _networks().popitem(last=False)
    _networks().move_to_end(backbone.digest)
    return _networks()[backbone.digest]
