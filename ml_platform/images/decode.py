"""Bytes of an image file to pixels: what cannot be decoded says why, what is too large is not decoded."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DataError
from ml_platform.specs.images import ImageSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


def decode(content: bytes, spec: ImageSpec = ImageSpec()) -> NDArray[np.uint8]:
    """The pixels of an encoded image (PNG, JPEG, TIFF, BMP, GIF, WebP): of its first frame.

    A JPEG that is to be much smaller is decoded at a reduced scale, which saves most of the work.

    Returns:
        Shape (height, width, channels), uint8; channels B G R (A).
    Raises:
        DataError: Empty, no image, cut short, or too large.
    """
    import numpy as np

    with _opened(content, spec) as image:
        pixels = np.asarray(_decoded(image, spec))
    pixels = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
    orders: dict[int, Any] = {1: slice(None), 3: slice(None, None, -1), 4: [2, 1, 0, 3]}
    return np.ascontiguousarray(pixels[:, :, orders[pixels.shape[2]]])


def decoded_size(content: bytes, spec: ImageSpec = ImageSpec()) -> tuple[int, int]:
    """Height and width that `decode` gives, of an image that it can decode.

    Much cheaper for a JPEG, of which the smallest scale tells whether it is whole.

    Raises:
        DataError: As `decode`.
    """
    with _opened(content, spec) as image:
        whole, is_jpeg = image.size, image.format == "JPEG"
        decoded = _decoded(image, spec.model_copy(update={"size": (1, 1)}) if is_jpeg else spec)
        width, height = whole if is_jpeg else decoded.size
        lies = is_jpeg and _is_lying(image)
    return spec.size or ((width, height) if lies else (height, width))


def _opened(content: bytes, spec: ImageSpec) -> Image:
    """Not decoded yet; of a size that may be."""
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise DataError("empty file")
    if len(content) > spec.most_bytes:
        raise DataError(
            f"a file of {len(content):,} bytes is too large", wanted=f"at most {spec.most_bytes:,} bytes"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images: they are refused below
            image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise DataError("not an image", got=f"bytes that begin with {content[:8].hex(' ')}") from None
    except Image.DecompressionBombError as error:
        raise DataError("the image has too many pixels", got=error) from None
    except Exception as error:
        raise DataError("the image cannot be opened", got=f"{type(error).__name__}: {error}") from error
    _check_size(image, spec)
    return image


def _decoded(image: Image, spec: ImageSpec) -> Image:
    try:
        return _sized(_coloured(_upright(image, spec), spec.channels), spec)
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise DataError("the image cannot be decoded", got=f"{type(error).__name__}: {error}") from error


def _check_size(image: Image, spec: ImageSpec) -> None:
    width, height = image.size
    if height * width > spec.most_pixels:
        raise DataError(
            f"an image of {height:,} × {width:,} pixels is too large",
            wanted=f"at most {spec.most_pixels:,} pixels",
        )


def _upright(image: Image, spec: ImageSpec) -> Image:
    from PIL import ImageOps

    if spec.size is not None and image.format == "JPEG":
        height, width = spec.size
        image.draft(None, (height, width) if _is_lying(image) else (width, height))
    image.load()
    # It copies the pixels of an image that stands upright, too.
    return ImageOps.exif_transpose(image) if _ORIENTATION in image.getexif() else image


def _is_lying(image: Image) -> bool:
    return image.getexif().get(_ORIENTATION) in _LYING


def _coloured(image: Image, channels: int | None) -> Image:
    """One of the modes L, RGB and RGBA."""
    if image.mode in _SIXTEEN_BITS:
        image = _eight_bits(image)
    elif image.mode in ("I", "F"):
        raise DataError(f"pixels of 32 bits (mode {image.mode}) have no known range", wanted="8 or 16 bits")
    transparent = image.mode in _WITH_ALPHA or "transparency" in image.info
    if channels == 4 or (channels is None and transparent):
        return image.convert("RGBA")
    if transparent:
        image = _over_white(image.convert("RGBA"))
    wanted = "L" if channels == 1 or (channels is None and image.mode in ("1", "L")) else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _eight_bits(image: Image) -> Image:
    """65535 is as white as 255."""
    import numpy as np
    from PIL import Image as pillow  # noqa: N813

    values = np.asarray(image).astype(np.uint32)
    return pillow.fromarray(((values + 128) // 257).astype(np.uint8))


def _over_white(image: Image) -> Image:
    from PIL import Image as pillow  # noqa: N813

    white = pillow.new("RGBA", image.size, (255, 255, 255, 255))
    return pillow.alpha_composite(white, image)


def _sized(image: Image, spec: ImageSpec) -> Image:
    from PIL.Image import Resampling

    if spec.size is None:
        return image
    height, width = spec.size
    return image if image.size == (width, height) else image.resize((width, height), Resampling.BILINEAR)
