"""A raw model: one folder that turns raw rows into class probabilities, or a number, anywhere, without Spark.

```
folder/
  manifest.json            format, family, raw input contract, split, lineage, sha256 and size per file
  features.json            the fitted feature state: how raw columns become features
  model.keras | model.ubj | model.skops | model.npz
                           the network, the trees, an estimator of scikit-learn, or what MLlib learnt
  backbone.keras           of a model of images: what turns them into features
```

The folder is also what an MLflow pyfunc model of ours keeps: `_load_pyfunc` is its loader. Nothing in it
is a pickle, and a folder that holds anything its manifest does not list is refused.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from pydantic import Field, TypeAdapter, ValidationError

from ml_platform.errors import DataError, InfrastructureError, SpecError, StoreError, nearest
from ml_platform.resources.spark_daemon import TENSORFLOW
from ml_platform.specs.base import Spec
from ml_platform.specs.contracts import Contract
from ml_platform.specs.images import ImageState
from ml_platform.specs.references import ModelFamily
from ml_platform.specs.registry import load_named
from ml_platform.specs.tables import FeatureState, SplitSpec
from ml_platform.store.digests import digest, file_digest
from ml_platform.store.folders import local_path

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

FORMAT: Literal[1] = 1
MANIFEST = "manifest.json"
FEATURES = "features.json"
BACKBONE = "backbone.keras"


@dataclass(frozen=True)
class FamilyEntry:
    """How a family's model file is called, and what opens it."""

    file: str
    opener: str
    imports: tuple[str, ...] = ()
    """What takes long to import, and is worth a process that has it."""


FAMILIES: Mapping[str, FamilyEntry] = {
    "keras": FamilyEntry("model.keras", "ml_platform.inference.keras_family:open_estimator", TENSORFLOW),
    "xgboost": FamilyEntry("model.ubj", "ml_platform.inference.xgboost_family:open_estimator"),
    "sklearn": FamilyEntry("model.skops", "ml_platform.inference.sklearn_family:open_estimator"),
    "mllib": FamilyEntry("model.npz", "ml_platform.inference.mllib_family:open_estimator"),
    "fine_tuned": FamilyEntry("model.keras", "ml_platform.inference.keras_family:open_estimator", TENSORFLOW),
}
"""Families by name. The opener is imported when a model of the family is first loaded."""


class Estimator(Protocol):
    """What a family's opener returns."""

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (rows, width) → shape (rows, state.outputs): probabilities, or the standardised number."""


class FileEntry(Spec):
    """One file of the folder."""

    sha256: str
    bytes: int = Field(ge=0)


class RawManifest(Spec):
    """What the folder promises about itself."""

    format: Literal[1] = FORMAT
    family: ModelFamily
    contract: Contract = Field(description="Raw input: columns that the model reads.")
    split: SplitSpec
    lineage: dict[str, str] = Field({}, description="Where it comes from: data set fingerprints, run ids.")
    files: dict[str, FileEntry]


class RawModel:
    """A loaded model. Takes raw rows; label and other columns may be there and are ignored."""

    def __init__(
        self,
        manifest: RawManifest,
        state: FeatureState,
        features: Callable[[pa.Table], NDArray[np.float32]],
        estimator: Estimator,
        digest: str,
    ) -> None:
        self.manifest = manifest
        self.state = state
        self.digest = digest
        self._features = features
        self._estimator = estimator

    @property
    def family(self) -> ModelFamily:
        return self.manifest.family

    @property
    def classes(self) -> tuple[str, ...]:
        return self.state.classes

    @property
    def contract(self) -> Contract:
        """Raw input: the columns that the model reads."""
        return self.manifest.contract

    def predict(self, table: pa.Table | pa.RecordBatch) -> NDArray[np.float32] | NDArray[np.float64]:
        """Class probabilities of raw rows, or their numbers.

        Returns:
            Shape (rows, classes), float32; columns in the order of `classes`. Of a model that predicts a
            number shape (rows, 1), float64, in the label's own unit.
        Raises:
            DataError: A column is missing, or holds a value that its type cannot hold.
        """
        import numpy as np

        from ml_platform.features.target import in_own_unit
        from ml_platform.inference.columns import conform

        target = self.state.target
        if table.num_rows == 0:
            outputs = np.empty((0, self.state.outputs), np.float32)
        else:
            outputs = self._estimator.predict(self._features(conform(table, self.contract)))
        return outputs if target is None else in_own_unit(outputs, target)

    def columns(self, outputs: NDArray[Any]) -> pa.Table:
        """What `predict` gave, as the columns that people read."""
        from ml_platform.inference.columns import number_columns, prediction_columns

        return prediction_columns(outputs, self.classes) if self.classes else number_columns(outputs)

    def to_frame(self, table: pa.Table | pa.RecordBatch) -> pd.DataFrame:
        """`prediction`; of classes also `probability` and `probabilities` (a dict per row)."""
        frame = self.columns(self.predict(table)).to_pandas()
        if self.classes:
            frame["probabilities"] = [dict(pairs) for pairs in frame["probabilities"]]
        return frame


def write_raw_model(
    folder: Path,
    *,
    family: str,
    model_file: Path,
    state: FeatureState,
    split: SplitSpec,
    contract: Contract,
    lineage: Mapping[str, str],
) -> Path:
    """Write the folder of a raw model: all of it, or nothing.

    Args:
        folder: Must not exist, or be empty.
        model_file: The estimator's file; copied under the name that its family gives it.
        contract: Columns of the training table. Kept: those that the model reads.
        lineage: Where the model comes from.
    Returns:
        `folder`.
    Raises:
        SpecError: The family is unknown, or the features read a column that the contract lacks.
        StoreError: The folder holds something already, or cannot be written.
    """
    entry = _family(family)
    contract = required_input(contract, state)
    building = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        building.mkdir(parents=True)
        (building / FEATURES).write_text(state.model_dump_json(indent=2), encoding="utf-8")
        shutil.copyfile(model_file, building / entry.file)
        if isinstance(state, ImageState):
            shutil.copyfile(local_path(state.backbone), building / BACKBONE)
        files = {path.name: _file_entry(path) for path in sorted(building.iterdir())}
        manifest = RawManifest(
            family=cast("ModelFamily", family),
            contract=contract,
            split=split,
            lineage=dict(lineage),
            files=files,
        )
        (building / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
        building.replace(folder)
    except OSError as error:
        raise StoreError(f"the model folder {folder} cannot be written", got=error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def load_raw_model(folder: Path) -> RawModel:
    """Load a raw model whose every file is what its manifest says.

    Raises:
        DataError: The folder is no raw model, is of another format, was changed, or holds more.
    """
    manifest = read_manifest(folder)
    entry = _family(manifest.family)
    # What kind of features it has shows in a file that must be checked first.
    _check_files(folder, manifest, {FEATURES, entry.file} | (manifest.files.keys() & {BACKBONE}))
    state = read_state(folder)
    estimator = _opener(entry)(folder / entry.file, state)
    return RawModel(manifest, state, _features(folder, state), estimator, digest(folder))


def read_manifest(folder: Path) -> RawManifest:
    """The manifest of a model folder.

    Raises:
        DataError: It is missing, or of a format that this version does not read.
    """
    try:
        return RawManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise DataError(f"{folder} is no model folder", wanted=MANIFEST, got=error) from error
    except ValidationError as error:
        raise DataError(
            f"the manifest of the model in {folder} cannot be read",
            wanted=f"format {FORMAT}",
            evidence=str(error),
            hint="load it with the version of ml-platform that wrote it",
        ) from error


def read_state(folder: Path) -> FeatureState:
    """The fitted feature state in a model folder.

    Raises:
        DataError: It is missing or unreadable.
    """
    # Not a constant of the module: it has no identity, and whoever reaches it could not be cached.
    states: TypeAdapter[ImageState | FeatureState] = TypeAdapter(ImageState | FeatureState)
    try:
        return states.validate_json((folder / FEATURES).read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"the feature state of the model in {folder} cannot be read", got=error) from error


def other_format(folder: Path) -> DataError | None:
    """Why the files of a model are not what this version writes; None when they are.

    Raises:
        DataError: They are missing.
    """
    try:
        read_manifest(folder)
        read_state(folder)
    except DataError as error:
        if isinstance(error.__cause__, ValidationError):
            return error
        raise
    return None


def required_input(contract: Contract, state: FeatureState) -> Contract:
    """The columns of `contract` that `state` reads, in the order of `contract`.

    Raises:
        SpecError: One of them is not in the contract.
    """
    lacking = [name for name in state.columns if name not in contract.names]
    if lacking:
        raise SpecError(
            f"the features read column {lacking[0]!r}, which the contract lacks",
            hint=nearest(lacking[0], contract.names),
        )
    return contract.without(set(contract.names) - set(state.columns))


class PyfuncModel:
    """What MLflow serves: pandas in, pandas out."""

    def __init__(self, model: RawModel) -> None:
        self.model = model

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Raw rows → `prediction`; of classes also `probability`, `probabilities`. `params` are not used.

        Raises:
            DataError: A column is missing or does not hold its type.
        """
        from ml_platform.inference.columns import from_pandas

        frame = self.model.to_frame(from_pandas(model_input, self.model.contract))
        return frame.set_axis(model_input.index, axis=0)


def _load_pyfunc(path: str) -> PyfuncModel:
    """MLflow's entry: `mlflow.pyfunc.load_model` calls it with the folder of the model's data."""
    return PyfuncModel(load_raw_model(Path(path)))


def _features(folder: Path, state: FeatureState) -> Callable[[pa.Table], NDArray[np.float32]]:
    """What turns rows that conform to the contract into features."""
    if isinstance(state, ImageState):
        from ml_platform.images.features import image_transform

        return image_transform(folder / BACKBONE, state)
    from ml_platform.features.apply import transform

    return partial(transform, state=state)


def _check_files(folder: Path, manifest: RawManifest, expected: set[str]) -> None:
    listed = set(manifest.files)
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    if listed != expected or there != listed:
        raise DataError(
            f"the model folder {folder} does not hold what it should",
            wanted=", ".join(sorted(expected)),
            got=f"listed: {', '.join(sorted(listed))}; there: {', '.join(sorted(there))}",
        )
    for name, entry in manifest.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file() or file_digest(path) != entry.sha256:
            raise DataError(
                f"{path} is not the file that the model was written with",
                wanted=f"a plain file with sha256 {entry.sha256}",
                hint="fetch the model again",
            )


def _family(name: str) -> FamilyEntry:
    if name not in FAMILIES:
        raise SpecError(f"unknown model family {name!r}", hint=nearest(name, FAMILIES))
    return FAMILIES[name]


def _opener(entry: FamilyEntry) -> Callable[[Path, FeatureState], Estimator]:
    try:
        opener = load_named(entry.opener)
    except ImportError as error:
        raise InfrastructureError(f"what opens {entry.file} is not installed here", got=error) from error
    return cast("Callable[[Path, FeatureState], Estimator]", opener)


def _file_entry(path: Path) -> FileEntry:
    return FileEntry(sha256=file_digest(path), bytes=path.stat().st_size)
