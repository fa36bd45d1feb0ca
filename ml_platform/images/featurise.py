"""Features of images on Spark: one function over image structs, run in batches by a traced network."""

from __future__ import annotations

import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.images.backbone import BackboneSpec, Features, write_backbone
from ml_platform.images.schema import FIELDS, image_pixels
from ml_platform.store.digests import file_digest
from ml_platform.worker.session import calm_tensorflow

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import Column, SparkSession

BATCH = 32
"""Images per call of the network. The last batch is padded, so that the network is traced once."""
KEPT = 2
"""Networks that a worker process keeps open."""

_networks: OrderedDict[str, Callable[[Any], Any]] = OrderedDict()


@dataclass(frozen=True)
class Backbone:
    """A network on its way to executors: its digest, what it gives, and a broadcast of its file."""

    digest: str
    features: Features
    content: Any

    def column(self, image: Column | str) -> Column:
        """Features of an image struct: an array of float32, or null where the struct is null.

        Images of another size are resized; grey ones are taken as colours, alpha is dropped.
        """
        from pyspark.sql.pandas.functions import ArrowUDFType, arrow_udf

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # type hints would have to import Arrow at the top
            features = arrow_udf(_Featuriser(self), "array<float>", ArrowUDFType.SCALAR_ITER)
        return features(image)


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
    network: Callable[[Any], Any], pixels: Iterator[NDArray[np.uint8]], features: Features
) -> Iterator[NDArray[np.float32]]:
    """Feature vectors, a batch at a time.

    Args:
        pixels: B G R pixels of the network's size.
    Returns:
        Shapes (rows, width); at most `BATCH` rows.
    """
    import numpy as np

    height, width = features.size
    batch = np.zeros((BATCH, height, width, 3), np.float32)
    filled = 0
    for image in pixels:
        batch[filled] = image[:, :, ::-1]
        filled += 1
        if filled == BATCH:
            yield network(batch).numpy()
            filled = 0
    if filled:
        yield network(batch).numpy()[:filled]


def open_network(file: Path, features: Features) -> Callable[[Any], Any]:
    """The network of a file that `write_backbone` wrote, traced for one shape."""
    calm_tensorflow()
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(file, compile=False, safe_mode=True)
    signature = [tf.TensorSpec([BATCH, *features.size, 3], tf.float32)]
    traced: Callable[[Any], Any] = tf.function(
        lambda pixels: model(pixels, training=False), input_signature=signature, autograph=False
    )
    return traced


@dataclass(frozen=True)
class _Featuriser:
    """What runs on executors: arrays of image structs in, arrays of vectors out."""

    backbone: Backbone

    def __call__(self, batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        import numpy as np
        import pyarrow as pa

        network, features = _opened(self.backbone), self.backbone.features
        for batch in batches:
            rows = list(forward(network, _pixels(batch.drop_null(), features.size), features))
            values = np.concatenate(rows) if rows else np.empty((0, features.width), np.float32)
            lengths = np.where(batch.is_valid().to_numpy(zero_copy_only=False), features.width, 0)
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            yield pa.ListArray.from_arrays(offsets, pa.array(values.ravel()), mask=batch.is_null())


def _pixels(structs: pa.StructArray, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    for struct in structs:
        pixels = image_pixels({name: struct[name].as_py() for name in FIELDS})
        yield _resized(_colours(pixels), size)


def _colours(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import numpy as np

    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def _resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if pixels.shape[:2] == size:
        return pixels
    import numpy as np
    from PIL import Image

    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def _opened(backbone: Backbone) -> Callable[[Any], Any]:
    """From this process's cache, or from the broadcast."""
    if backbone.digest not in _networks:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "backbone.keras")
            file.write_bytes(backbone.content.value)
            _networks[backbone.digest] = open_network(file, backbone.features)
        while len(_networks) > KEPT:
            _networks.popitem(last=False)
    _networks.move_to_end(backbone.digest)
    return _networks[backbone.digest]
