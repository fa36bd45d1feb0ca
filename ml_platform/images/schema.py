"""The image struct of Spark: `origin, height, width, nChannels, mode, data`.

`data` holds the pixels row by row, channels in the order B G R (A); `mode` is OpenCV's number for the type
and the number of channels: what `spark.read.format("image")` gives, and what its users read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql.types import StructType

FIELDS = ("origin", "height", "width", "nChannels", "mode", "data")

MODES: Mapping[tuple[str, int], int] = {
    ("uint8", 1): 0,
    ("uint8", 3): 16,
    ("uint8", 4): 24,
    ("float32", 1): 5,
    ("float32", 3): 21,
    ("float32", 4): 29,
}
"""OpenCV's numbers of what the struct may hold, by type and number of channels."""

_KINDS = {mode: kind for kind, mode in MODES.items()}


def image_struct(pixels: NDArray[Any], origin: str = "") -> dict[str, Any]:
    """The struct of an image.

    Args:
        pixels: Shape (height, width) or (height, width, channels), uint8 or float32; B G R (A).
        origin: Where it comes from; a URI.
    Raises:
        DataError: Another shape or type.
    """
    import numpy as np

    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    kind = (pixels.dtype.name, pixels.shape[-1])
    if pixels.ndim != 3 or kind not in MODES:
        raise DataError(
            "no image",
            wanted="shape (height, width, 1, 3 or 4) of uint8 or float32",
            got=f"shape {pixels.shape} of {pixels.dtype}",
        )
    height, width, channels = pixels.shape
    values = (origin, height, width, channels, MODES[kind], np.ascontiguousarray(pixels).tobytes())
    return dict(zip(FIELDS, values, strict=True))


def image_pixels(struct: Mapping[str, Any]) -> NDArray[Any]:
    """The pixels of an image struct, a read-only view of its bytes.

    Args:
        struct: A dict, or a row's `asDict()`.
    Returns:
        Shape (height, width, channels), uint8 or float32; B G R (A).
    Raises:
        DataError: An unknown mode, or bytes that are not as many as the size says.
    """
    import numpy as np

    kind = _KINDS.get(struct["mode"])
    if kind is None or kind[1] != struct["nChannels"]:
        raise DataError(
            f"an image of mode {struct['mode']} with {struct['nChannels']} channels",
            wanted=", ".join(f"{mode} ({name} × {channels})" for mode, (name, channels) in _KINDS.items()),
        )
    shape = (struct["height"], struct["width"], struct["nChannels"])
    data: NDArray[np.uint8] = np.frombuffer(struct["data"], kind[0])
    if data.size != np.prod(shape):
        raise DataError(
            f"an image of {data.size} values", wanted=f"{np.prod(shape)}, as its shape {shape} says"
        )
    return data.reshape(shape)


def spark_schema() -> StructType:
    """The struct's type in Spark, equal to what `spark.read.format("image")` gives."""
    from pyspark.sql import types as T  # noqa: N812

    kinds = (T.StringType(), *[T.IntegerType()] * 4, T.BinaryType())
    return T.StructType([T.StructField(name, kind) for name, kind in zip(FIELDS, kinds, strict=True)])


def arrow_type() -> pa.DataType:
    """The struct's type in Arrow."""
    import pyarrow as pa

    kinds = (pa.string(), *[pa.int32()] * 4, pa.binary())
    return pa.struct(list(zip(FIELDS, kinds, strict=True)))
