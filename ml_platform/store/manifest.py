"""The manifest makes a folder a data set; reading what it lists needs no Spark.

```
<store>/<name>/<uuid>/
  part-00000.parquet …   immutable; empty partitions leave no file
  _manifest.json         written last: without it there is no data set; readers of Parquet pass it over
```
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from ml_platform.errors import DataError, StoreError, nearest
from ml_platform.specs.base import Spec
from ml_platform.specs.contracts import Contract
from ml_platform.specs.references import Dataset
from ml_platform.store.folders import Folder, open_folder
from ml_platform.store.parquet_files import open_parquet

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "_manifest.json"


class FileEntry(Spec):
    """One data file, as it was when it was written."""

    name: str = Field(pattern=r"^[^/]+$")
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    checksum: str = Field(description="sha256 of the file.")


class Manifest(Spec):
    """What a data set holds."""

    format: Literal[1] = 1
    contract: Contract
    rows: int = Field(ge=0)
    files: tuple[FileEntry, ...]
    fingerprint: str
    spark_schema: dict[str, Any] = Field(description="Spark's JSON form of the schema.")
    arrow_schema: str = Field(description="Schema of the files: Arrow IPC, base64.")
    writers: dict[str, str] = Field({}, description="Versions of what wrote it.")
    created: str = Field(description="ISO 8601, UTC.")
    digest: str = Field("", description="sha256 of this manifest without this field.")

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.files)

    def sealed(self) -> Manifest:
        """This manifest with its own digest."""
        return self.model_copy(update={"digest": self._own_digest()})

    def is_unaltered(self) -> bool:
        return self.digest == self._own_digest() and self.rows == sum(entry.rows for entry in self.files)

    def _own_digest(self) -> str:
        content = self.model_dump(mode="json", exclude={"digest"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def schema_of_files(self) -> pa.Schema:
        """Arrow schema of the data files."""
        import pyarrow as pa

        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.arrow_schema)))

    def reference(self, uri: str) -> Dataset:
        return Dataset(
            uri=uri,
            contract=self.contract,
            rows=self.rows,
            bytes=self.bytes,
            fingerprint=self.fingerprint,
        )


class DataFile(Spec):
    """A file of a data set."""

    uri: str
    rows: int
    bytes: int
    checksum: str = Field(description="sha256 of the file.")


def open_dataset(uri: str) -> Dataset:
    """The reference of the data set at `uri`.

    Raises:
        StoreError: There is no data set, or its manifest or files are not what was written.
    """
    return read_manifest(uri).reference(uri)


def dataset_files(dataset: Dataset) -> tuple[DataFile, ...]:
    """The files of a data set, in the order of its manifest; their sizes are checked.

    Raises:
        StoreError: The data set is gone, another one, or a file is missing or has another size.
    """
    folder = open_folder(dataset.uri)
    return tuple(
        DataFile(uri=folder.file_uri(entry.name), rows=entry.rows, bytes=entry.bytes, checksum=entry.checksum)
        for entry in manifest_of(dataset).files
    )


def manifest_of(dataset: Dataset) -> Manifest:
    """The manifest behind a reference. Raises as `dataset_files` does."""
    manifest = read_manifest(dataset.uri)
    if manifest.fingerprint != dataset.fingerprint:
        raise StoreError(
            f"another data set lies at {dataset.uri}",
            wanted=f"fingerprint {dataset.fingerprint}",
            got=manifest.fingerprint,
        )
    return manifest


def read_manifest(uri: str) -> Manifest:
    """The manifest at `uri`, with the sizes of its files checked. Raises as `open_dataset` does."""
    folder = open_folder(uri)
    try:
        manifest = Manifest.model_validate_json(folder.read(MANIFEST))
    except FileNotFoundError as error:
        raise StoreError(
            f"there is no data set at {uri}",
            wanted=MANIFEST,
            hint="the run that should have written it failed, or it was removed; run it again",
        ) from error
    except OSError as error:
        raise StoreError(f"{uri}/{MANIFEST} cannot be read", got=error) from error
    except ValidationError as error:
        raise _altered(uri, "not a manifest of format 1", evidence=str(error)) from error
    if not manifest.is_unaltered():
        raise _altered(uri, "its digest does not match its content")
    sizes = _sizes(folder) if manifest.files else {}
    for entry in manifest.files:
        if (size := sizes.get(entry.name)) != entry.bytes:
            found = "no file" if size is None else f"{size} bytes"
            raise _altered(f"{uri}/{entry.name}", found, wanted=f"{entry.bytes} bytes")
    return manifest


def _sizes(folder: Folder) -> Mapping[str, int]:
    try:
        return folder.sizes()
    except OSError as error:
        raise StoreError(f"{folder.uri} cannot be listed", got=error) from error


def read_table(dataset: Dataset, columns: list[str] | None = None) -> pa.Table:
    """The rows of a data set in memory, in the order of its manifest.

    Args:
        columns: Which, and in which order. Default: all.
    Raises:
        DataError: A column is not there.
        StoreError: The data set or one of its files is not what was written.
    """
    import pyarrow as pa

    manifest = manifest_of(dataset)
    schema = manifest.schema_of_files()
    names = schema.names if columns is None else columns
    for name in set(names) - set(schema.names):
        raise DataError(f"no column {name!r} in {dataset.uri}", hint=nearest(name, schema.names))
    wanted = pa.schema([schema.field(name) for name in names])
    tables = [_read_file(file, wanted) for file in dataset_files(dataset)]
    return pa.concat_tables(tables) if tables else wanted.empty_table()


def footer_rows(uri: str) -> int:
    """Rows of a Parquet file, as its footer says.

    Raises:
        StoreError: It cannot be read from here.
    """
    import pyarrow as pa

    try:
        with open_parquet(uri) as opened:
            return int(opened.metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"{uri} cannot be read by the driver",
            got=error,
            hint="driver and executors must share the storage that ML_PLATFORM_STORE names",
        ) from error


def _read_file(file: DataFile, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    try:
        # Not `parquet.read_table`: it would read keys and values into folder names such as a=1.
        with open_parquet(file.uri, verified=True) as opened:
            table: pa.Table = opened.read(columns=schema.names, use_threads=True)
    except (OSError, pa.ArrowException) as error:
        wanted = "the file as it was written"
        raise StoreError(f"{file.uri} cannot be read", wanted=wanted, got=error) from error
    return table.select(schema.names).cast(schema)


def _altered(what: str, got: str, *, wanted: str | None = None, evidence: str | None = None) -> StoreError:
    return StoreError(
        f"{what} is not what was written",
        wanted=wanted,
        got=got,
        evidence=evidence,
        hint="data sets are immutable: remove the folder and run the task again",
    )
