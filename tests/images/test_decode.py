"""Bytes to pixels: every kind of image file that people have, and every kind that is broken."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from ml_platform.errors import DataError
from ml_platform.images.decode import decode, decoded_size
from ml_platform.images.schema import image_pixels, image_struct
from ml_platform.specs.images import ImageSpec
from tests.images.pictures import BAD, encoded, gradient

AS_IT_IS = ImageSpec(channels=None)


def test_pixels_are_bgr() -> None:
    pixels = gradient()
    np.testing.assert_array_equal(decode(encoded(pixels)), pixels[:, :, ::-1])


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_every_format_is_read(kind: str) -> None:
    pixels = gradient()
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(pixels, kind, **options)
    difference = np.abs(decode(content).astype(int) - pixels[:, :, ::-1])
    assert difference.mean() < {"GIF": 20, "JPEG": 6}.get(kind, 1e-9)
    assert decoded_size(content) == (20, 30)
    assert decoded_size(content, ImageSpec(size=(5, 6))) == (5, 6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stands_as_its_exif_says(orientation: int) -> None:
    pixels = gradient(16, 32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels),
    }[orientation]
    np.testing.assert_array_equal(decode(encoded(pixels, exif=exif)), upright[:, :, ::-1])
    for kind in ("PNG", "JPEG", "TIFF"):
        content = encoded(pixels, kind, exif=exif)
        assert decoded_size(content) == upright.shape[:2] == decode(content).shape[:2]


def test_grey_and_alpha_stay_when_asked_and_fit_the_channels_otherwise() -> None:
    grey = gradient()[:, :, 0]
    assert decode(encoded(grey), AS_IT_IS).shape == (20, 30, 1)
    np.testing.assert_array_equal(decode(encoded(grey)), np.repeat(grey[:, :, None], 3, axis=2))
    half = np.dstack([gradient(), np.full((20, 30), 128, np.uint8)])
    np.testing.assert_array_equal(decode(encoded(half), AS_IT_IS), half[:, :, [2, 1, 0, 3]])
    over_white = decode(encoded(half))
    assert over_white.shape == (20, 30, 3)
    np.testing.assert_allclose(over_white, half[:, :, 2::-1] * (128 / 255) + 255 * (127 / 255), atol=1)
    assert decode(encoded(gradient()), ImageSpec(channels=1)).shape == (20, 30, 1)
    assert decode(encoded(gradient()), ImageSpec(channels=4))[0, 0, 3] == 255


def test_sixteen_bits_become_eight() -> None:
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    assert decode(encoded(values), AS_IT_IS)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_cmyk_and_palettes_become_colours() -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert decode(encoded(red.convert("CMYK"), "TIFF"))[0, 0].tolist() == [0, 0, 255]
    near = decode(encoded(red.convert("CMYK"), "JPEG"))[0, 0]
    assert np.abs(near.astype(int) - [0, 0, 255]).max() < 6
    assert decode(encoded(red.convert("P")))[0, 0].tolist() == [0, 0, 255]
    see_through = Image.new("P", (4, 4), 0)
    see_through.info["transparency"] = 0
    assert decode(encoded(see_through), AS_IT_IS).shape == (4, 4, 4)


@pytest.mark.slow
def test_a_resized_image_looks_the_same_and_a_jpeg_is_not_decoded_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a photo of 12 million pixels, which take 36 MB, only an eighth of each side is decoded."""
    decoded = []
    load = JpegImageFile.load
    monkeypatch.setattr(JpegImageFile, "load", lambda image: decoded.append(image.size) or load(image))
    small = decode(encoded(gradient(400, 600)), ImageSpec(size=(20, 30)))
    np.testing.assert_allclose(small.astype(int), gradient()[:, :, ::-1], atol=12)
    photo = encoded(gradient(3000, 4000), "JPEG")
    at_once = decode(photo, ImageSpec(size=(96, 128)))
    np.testing.assert_allclose(at_once.astype(int), gradient(96, 128)[:, :, ::-1], atol=12)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = decode(encoded(gradient(300, 400), "JPEG", exif=exif), ImageSpec(size=(128, 96)))
    assert lying.shape == (128, 96, 3)
    assert decode(photo, ImageSpec(size=(375, 500))).shape == (375, 500, 3)
    assert {(500, 375), (200, 150)} == set(decoded)


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_says_so_before_memory_is_taken(name: str) -> None:
    """The largest would take 4.8 GB."""
    content, message = BAD[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=message):
        decode(content)
    with pytest.raises(DataError, match=message):
        decoded_size(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_limits_are_those_of_the_spec() -> None:
    content = encoded(gradient())
    with pytest.raises(DataError, match="20 × 30 pixels is too large"):
        decode(content, ImageSpec(most_pixels=599))
    with pytest.raises(DataError, match="bytes is too large"):
        decode(content, ImageSpec(most_bytes=10))
    with pytest.raises(DataError, match="32 bits"):
        decode(encoded(np.zeros((4, 4), np.float32), "TIFF"))


def test_structs_hold_what_they_were_given() -> None:
    for pixels in (
        np.zeros((2, 3), np.uint8),
        gradient(),
        np.ones((2, 3, 4), np.uint8),
        np.ones((2, 3, 3), np.float32),
    ):
        struct = image_struct(pixels, "here")
        again = image_pixels(struct)
        assert struct["origin"] == "here"
        assert again.dtype == pixels.dtype
        np.testing.assert_array_equal(again, pixels if pixels.ndim == 3 else pixels[:, :, None])
    with pytest.raises(DataError, match="no image"):
        image_struct(np.zeros((2, 3, 2), np.uint8))
    with pytest.raises(DataError, match="an image of 6 values"):
        image_pixels({**image_struct(np.zeros((2, 3), np.uint8)), "width": 4})
    with pytest.raises(DataError, match="mode 3"):
        image_pixels({**image_struct(np.zeros((2, 3), np.uint8)), "mode": 3})
