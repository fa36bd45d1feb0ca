"""Backbones: networks that turn images into features. One Keras file that takes RGB pixels and does the rest.

Any application of Keras or any model of the user's serves, cut at one or several layers. Preprocessing is
part of the file, so whoever runs it needs to know nothing about the network.
"""

from __future__ import annotations

import ast
import importlib.util
import shutil
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.data.remote import fetched
from ml_platform.errors import DataError, InfrastructureError, SpecError, nearest
from ml_platform.specs.images import PIXELS, SUFFIX, BackboneSpec, Features
from ml_platform.store.digests import file_digest
from ml_platform.store.leftovers import builder
from ml_platform.store.location import home

if TYPE_CHECKING:
    import keras

PIXELS_SIZE = (16, 16)
"""Height and width where no network says which."""
WEIGHTS_SUFFIX = ".weights.h5"
LARGE = ("InceptionV3", "Xception", "InceptionResNetV2")
"""Networks made for 299 × 299 pixels; the others are for 224 × 224."""
_WITH_THEIR_OWN = {"MobileNetV3Small": "mobilenet_v3", "MobileNetV3Large": "mobilenet_v3"}
"""Modules of applications that Keras lists at the top alone."""


def write_backbone(spec: BackboneSpec, path: Path) -> Features:
    """Build a backbone and write it as one Keras file: RGB pixels, 0 to 255, to a vector per image.

    Args:
        path: Ends with `.keras`.
    Raises:
        SpecError: No such application or layer.
        DataError: The user's file is no Keras model for images, or has no size of its own.
        InfrastructureError: The weights cannot be fetched.
    """
    import keras

    keras.utils.set_random_seed(spec.seed)
    model, inputs = _opened(spec)
    outputs = {name: _pooled(name, output, spec.pooling) for name, output in _layers(model, spec).items()}
    joined = [*outputs.values()]
    vector = joined[0] if len(joined) == 1 else keras.layers.Concatenate()(joined)
    cut = keras.Model(model.inputs, vector)
    keras.Model(inputs, cut(_preprocessed(spec.name, inputs))).save(path)
    return Features(
        size=tuple(inputs.shape[1:3]), layers={name: output.shape[-1] for name, output in outputs.items()}
    )


def check_backbone(spec: BackboneSpec) -> None:
    """Is there such a network, and are the files there that a spec names? Keras is not imported for it.

    Raises:
        SpecError: Keras has no such application.
        DataError: A file is not there.
    """
    if not spec.name.endswith(SUFFIX):
        _check_name(spec.name, {PIXELS, *application_names()})
    elif not Path(spec.name).is_file():
        raise DataError(f"there is no file {spec.name}", wanted="a network that Keras has saved")
    if spec.weights not in ("imagenet", "none") and not _is_url(spec.weights):
        _local(spec.weights)


def backbone_identity(spec: BackboneSpec) -> dict[str, str]:
    """Digests of the files that a spec names, here or at a URL: the content decides, not the path.

    Raises:
        DataError, SpecError, StoreError: There is no file at the URL, or it cannot be fetched.
    """
    files = {text: Path(text) for text in (spec.name, spec.weights)}
    if _is_url(spec.weights):
        files[spec.weights] = fetched(spec.weights)
    return {text: file_digest(file) for text, file in files.items() if file.is_file()}


def keep_file(file: Path, digest: str) -> Path:
    """A copy in the platform's folder, under its digest, with the suffix that Keras goes by."""
    suffix = WEIGHTS_SUFFIX if file.name.endswith(WEIGHTS_SUFFIX) else file.suffix
    kept = home() / "backbones" / f"{digest}{suffix}"
    if not kept.exists():
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        building = kept.parent / f".{digest}.{builder()}"
        shutil.copyfile(file, building)
        building.replace(kept)
    return kept


def applications() -> Mapping[str, types.ModuleType]:
    """Every application of Keras by its name, with the module that holds its preprocessing."""
    import keras

    modules = [module for module in vars(keras.applications).values() if hasattr(module, "preprocess_input")]
    names = [
        name for name, value in vars(keras.applications).items() if name[0].isupper() and callable(value)
    ]
    found = {name: module for name in names for module in modules if hasattr(module, name)}
    return found | {name: getattr(keras.applications, module) for name, module in _WITH_THEIR_OWN.items()}


def application_names() -> set[str]:
    """Names of `applications()`, read from Keras' files: importing it takes seconds."""
    package = importlib.util.find_spec("keras")
    assert package is not None
    assert package.origin is not None
    text = Path(package.origin).parent.joinpath("applications", "__init__.py").read_text(encoding="utf-8")
    lines = [line for line in ast.parse(text).body if isinstance(line, ast.ImportFrom)]
    return {name.name for line in lines for name in line.names if name.name[0].isupper()}


def _check_name(name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise SpecError(
            f"no backbone {name!r}",
            wanted=f"an application of Keras, a {SUFFIX} file, or {PIXELS}",
            hint=nearest(name, known),
        )


def _opened(spec: BackboneSpec) -> tuple[keras.Model, Any]:
    """The network, and the input to feed it from."""
    if spec.name == PIXELS:
        return _pixels(spec)
    return _users(spec) if spec.name.endswith(SUFFIX) else _application(spec)


def _pixels(spec: BackboneSpec) -> tuple[keras.Model, Any]:
    """No network: values from 0 to 1, one per pixel and channel."""
    import keras

    shape = (*(spec.size or PIXELS_SIZE), 3)
    inputs = keras.Input(shape)
    flat = keras.layers.Flatten(name=PIXELS)(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, flat), keras.Input(shape)


def _application(spec: BackboneSpec) -> tuple[keras.Model, Any]:
    import keras

    _check_name(spec.name, applications())
    height, width = spec.size or ((299, 299) if spec.name in LARGE else (224, 224))
    weights = None if spec.weights == "none" else _local(spec.weights)
    try:
        model = getattr(keras.applications, spec.name)(
            include_top=False, weights=weights, input_shape=(height, width, 3)
        )
    except Exception as error:
        # A wrong request is a ValueError; a failed download is an OSError, or a bare Exception.
        if weights != "imagenet" or isinstance(error, ValueError):
            raise DataError(f"backbone {spec.name} cannot be built", got=error) from error
        raise InfrastructureError(
            f"the {spec.weights} weights of {spec.name} cannot be fetched",
            got=error,
            hint="--backbone.weights FILE; or none, with --trainers fine_tune, to train from scratch",
        ) from error
    return model, keras.Input((height, width, 3))


def _local(weights: str) -> str:
    """`imagenet` and a local file as they are; a URL as a local file of its name, which Keras goes by."""
    if _is_url(weights):
        return str(fetched(weights))
    if weights != "imagenet" and not Path(weights).is_file():
        raise DataError(f"no file {weights}", wanted="imagenet, none, or a file or URL of weights")
    return weights


def _is_url(weights: str) -> bool:
    return "://" in weights


def _users(spec: BackboneSpec) -> tuple[keras.Model, Any]:
    import keras

    try:
        model = keras.saving.load_model(spec.name, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError) as error:
        raise DataError(f"{spec.name} cannot be opened as a Keras model", got=error) from error
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] not in (1, 3):
        raise DataError(
            f"the model in {spec.name} takes no images", wanted="(None, height, width, 3)", got=shape
        )
    height, width = spec.size or shape[1:3]
    if height is None or width is None:
        raise DataError(
            f"the model in {spec.name} takes images of any size", hint="say which: size=(height, width)"
        )
    return model, keras.Input((height, width, 3))


def _layers(model: keras.Model, spec: BackboneSpec) -> dict[str, Any]:
    names = [layer.name for layer in model.layers]
    for name in spec.layers:
        if name not in names:
            raise SpecError(f"{spec.name} has no layer {name!r}", hint=nearest(name, names))
    if not spec.layers:
        return {model.layers[-1].name: model.outputs[0]}
    return {name: model.get_layer(name).output for name in spec.layers}


def _pooled(name: str, output: Any, pooling: str) -> Any:
    """A layer's output as one vector per image."""
    from keras import layers

    if len(output.shape) == 2:
        return output
    if pooling == "flat":
        return layers.Flatten(name=f"{name}_flat")(output)
    if len(output.shape) == 4:
        kind = layers.GlobalAveragePooling2D if pooling == "avg" else layers.GlobalMaxPooling2D
    elif len(output.shape) == 3:
        kind = layers.GlobalAveragePooling1D if pooling == "avg" else layers.GlobalMaxPooling1D
    else:
        raise SpecError(f"layer {name} gives shape {output.shape}", hint="pooling=flat takes any shape")
    return kind(name=f"{name}_{pooling}")(output)


def _preprocessed(name: str, inputs: Any) -> Any:
    """What the network was trained on, of RGB pixels from 0 to 255. A user's model takes these itself."""
    if name == PIXELS or name.endswith(SUFFIX):
        return inputs
    return applications()[name].preprocess_input(inputs)
