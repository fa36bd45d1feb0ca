"""Specs of images: how they are read, and which network turns them into features."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from ml_platform.specs.base import Location, Spec
from ml_platform.specs.tables import FeatureState

SUFFIX = ".keras"
"""Ends the name of a file that holds a network."""
PIXELS = "pixels"
"""Name of the backbone that is none: the pixels themselves."""
MOST_PIXELS = 170_000_000
"""Beyond this Pillow itself refuses an image."""


class ImageSpec(Spec):
    """What becomes of an image when it is read.

    Orientation from EXIF is applied. CMYK and palettes become colours, 16 bits become 8; alpha is laid over
    white where the channels have no place for it.
    """

    size: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="Height and width in pixels. Empty: as it is."
    )
    channels: Literal[1, 3, 4] | None = Field(3, description="1 grey, 3 BGR, 4 BGRA. Empty: as it is.")
    most_bytes: int = Field(64 << 20, gt=0, description="Of a file. A larger one is not read.")
    most_pixels: int = Field(
        50_000_000, gt=0, le=MOST_PIXELS, description="Height × width. A larger image is not decoded."
    )


class BackboneSpec(Spec):
    """Which network gives the features, and which of its layers."""

    name: str = Field(
        PIXELS,
        description=f"An application of Keras, such as ResNet50, a {SUFFIX} file, or {PIXELS}: no network.",
    )
    weights: str = Field(
        "imagenet", description="imagenet, a file or URL of weights, or none: random, to be trained."
    )
    layers: tuple[str, ...] = Field((), description="Layers to take. Empty: the last one before the top.")
    pooling: Literal["avg", "max", "flat"] = Field(
        "avg", description="What becomes of a layer's map: its mean, its maximum, or all of its values."
    )
    size: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="Height and width of its input. Empty: what the network was made for."
    )
    seed: int = Field(0, ge=0, description="Of random weights.")


class Features(Spec):
    """What a backbone gives for one image."""

    size: tuple[int, int]
    """Height and width of its input."""
    layers: dict[str, int]
    """Values that each layer adds, in the order of the feature vector."""

    @property
    def width(self) -> int:
        """Values of the whole vector."""
        return sum(self.layers.values())


class ImageState(FeatureState):
    """What turns encoded images into features: the network travels beside it, inside the model."""

    column: str = Field(description="Raw column: the encoded image, as bytes.")
    vector: Features = Field(description="What the network gives for an image.")
    backbone: Location = Field(description="The network's file.")
    backbone_digest: str = Field(description="sha256 of that file.")

    @property
    def width(self) -> int:
        """Features per image."""
        return self.vector.width

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per feature: `layer[number]`."""
        return tuple(f"{name}[{at}]" for name, width in self.vector.layers.items() for at in range(width))

    @property
    def columns(self) -> tuple[str, ...]:
        """The one raw column that is read."""
        return (self.column,)
