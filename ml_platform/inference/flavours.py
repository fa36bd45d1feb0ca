"""Kinds of models that can be scored with: how their files are recognised, and what opens them.

Nothing of a model is opened here. Kinds that are pickles run whatever code their author put into them, so
they are opened only where the caller says that he trusts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from ml_platform.errors import DataError, SpecError, nearest
from ml_platform.inference.binding import Needs
from ml_platform.resources.spark_daemon import TENSORFLOW
from ml_platform.specs.references import Flavour, ModelFiles
from ml_platform.specs.registry import load_named
from ml_platform.store.digests import digest, file_digest


class OpenedModel(Protocol):
    """A model in a process that predicts."""

    needs: Needs

    def predict(self, given: Any) -> Mapping[str, Any]:
        """Outputs by name, each with a row first, of arrays by name or of a pandas table: as `needs` says."""


@dataclass(frozen=True)
class FlavourEntry:
    """What opens a kind of model, and whether opening it runs code out of the model."""

    opener: str
    pickled: str = ""
    takes: Literal["tensors", "frame"] = "tensors"
    imports: tuple[str, ...] = ()
    """What takes long to import, and is worth a process that has it."""


FLAVOURS: Mapping[Flavour, FlavourEntry] = {
    "keras": FlavourEntry("ml_platform.inference.tensor_models:open_keras", imports=TENSORFLOW),
    "saved_model": FlavourEntry("ml_platform.inference.tensor_models:open_saved_model", imports=TENSORFLOW),
    "xgboost": FlavourEntry("ml_platform.inference.booster_model:open_booster"),
    "sklearn": FlavourEntry(
        "ml_platform.inference.pickled_model:open_pickle", "a pickle of scikit-learn's", takes="frame"
    ),
    "pyfunc": FlavourEntry(
        "ml_platform.tracking.pyfunc_model:open_pyfunc", "Python code or a pickle", takes="frame"
    ),
}
"""Openers are imported on first use, on executors: called with the path and the name of a signature."""

ENDS: Mapping[str, Flavour] = {
    ".keras": "keras",
    ".ubj": "xgboost",
    ".json": "xgboost",
    ".pkl": "sklearn",
    ".pickle": "sklearn",
    ".joblib": "sklearn",
}
"""Kinds of files by how their names end."""


def recognise(path: Path, uri: str, *, name: str | None = None, version: int | None = None) -> ModelFiles:
    """What kind of model lies at a path: a file, a SavedModel, or a folder as MLflow writes it.

    Raises:
        DataError: Nothing is there, or nothing that is known.
    """
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no model at {uri}", hint=nearest(path.name, beside) if beside else None)
    flavour, entry = _folder(path, uri) if path.is_dir() else (_file(path, uri), "")
    return ModelFiles(
        uri=uri,
        flavour=flavour,
        path=path.as_uri(),
        entry=entry,
        digest=digest(path) if path.is_dir() else file_digest(path),
        name=name or path.stem,
        version=version,
    )


def check_consent(model: ModelFiles, *, trust_pickle: bool) -> None:
    """Refuse a model that runs code when it is opened, unless its author is trusted.

    Raises:
        SpecError: Says what is inside, and how to allow it.
    """
    inside = FLAVOURS[model.flavour].pickled if model.flavour in FLAVOURS else ""
    if inside and not trust_pickle:
        raise SpecError(
            f"{model.uri} is {inside}: opening it runs whatever code its author put there",
            wanted="Keras, a SavedModel, XGBoost's own format, or a model that a run of this platform logged",
            got=f"{model.flavour}, {model.entry or Path(model.path).name}",
            hint="if you know who wrote it: trust_pickle=True, or --trust-pickle",
        )


def open_model(path: Path, flavour: Flavour, signature: str) -> OpenedModel:
    """Open a model's file or folder.

    Raises:
        DataError: It cannot be opened.
    """
    return cast("OpenedModel", load_named(FLAVOURS[flavour].opener)(path, signature))


def _file(path: Path, uri: str) -> Flavour:
    if path.suffix.lower() not in ENDS:
        raise DataError(
            f"{uri} is no model that can be scored with",
            wanted=f"a name that ends with {', '.join(ENDS)}; or a folder of a SavedModel or of MLflow",
            got=path.name,
        )
    return ENDS[path.suffix.lower()]


def _folder(path: Path, uri: str) -> tuple[Flavour, str]:
    if (path / "saved_model.pb").is_file():
        return "saved_model", ""
    if not (path / "MLmodel").is_file():
        raise DataError(f"{uri} is no model", wanted="saved_model.pb or MLmodel in the folder")
    flavors = read_mlmodel(path / "MLmodel").get("flavors") or {}
    if "keras" in flavors or "tensorflow" in flavors:
        found = _network(path)
        if found is not None:
            return found
    if "xgboost" in flavors:
        data = path / str(flavors["xgboost"].get("data", ""))
        if data.suffix in (".ubj", ".json"):
            return "xgboost", data.relative_to(path).as_posix()
    if "sklearn" in flavors:
        return "sklearn", str(flavors["sklearn"].get("pickled_model", "model.pkl"))
    if "python_function" in flavors:
        return "pyfunc", ""
    raise DataError(f"{uri} has no flavor that can be scored with", got=", ".join(flavors) or "none")


def _network(path: Path) -> tuple[Flavour, str] | None:
    """The Keras file or the SavedModel inside."""
    for file in sorted(path.rglob("*.keras")):
        return "keras", file.relative_to(path).as_posix()
    for file in sorted(path.rglob("saved_model.pb")):
        return "saved_model", file.parent.relative_to(path).as_posix()
    return None


def read_mlmodel(file: Path) -> dict[str, Any]:
    """The MLmodel file as plain values; nothing that it names is imported."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{file} cannot be read", got=error) from error
    return content if isinstance(content, dict) else {}
