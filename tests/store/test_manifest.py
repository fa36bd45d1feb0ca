"""Reading data sets: what is not what was written is refused, with its path."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from ml_platform.errors import DataError, StoreError
from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.references import Dataset
from ml_platform.store.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    dataset_files,
    open_dataset,
    read_table,
)
from ml_platform.store.part_file import write_part

TABLE = pa.table({"k": pa.array([1, 2, 3], pa.int64()), "s": ["a", None, "c"]})


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A data set of two files below a folder whose name Spark and URIs would read in another way."""
    folder = tmp_path / "a=1 [x]%20"
    folder.mkdir()
    entries = []
    for at, part in enumerate((TABLE, TABLE.slice(1))):
        written = write_part(part.to_batches(), (folder / f"part-{at:05d}.parquet").as_uri(), TABLE.schema)
        assert written is not None
        entries.append(FileEntry(name=f"part-{at:05d}.parquet", **vars(written)))
    manifest = Manifest(
        contract=Contract(columns=(Column(name="k", type="integer"), Column(name="s", type="string"))),
        rows=5,
        files=tuple(entries),
        fingerprint="f" * 64,
        spark_schema={},
        arrow_schema=base64.b64encode(TABLE.schema.serialize().to_pybytes()).decode(),
        created="2026-01-01T00:00:00+00:00",
    )
    (folder / MANIFEST).write_text(manifest.sealed().model_dump_json())
    return open_dataset(folder.as_uri())


def folder_of(dataset: Dataset) -> Path:
    from ml_platform.store.folders import local_path

    return local_path(dataset.uri)


def test_reads_rows_in_the_order_of_the_manifest(dataset: Dataset) -> None:
    assert read_table(dataset)["k"].to_pylist() == [1, 2, 3, 2, 3]
    assert read_table(dataset, ["s", "k"]).column_names == ["s", "k"]
    assert [file.rows for file in dataset_files(dataset)] == [3, 2]


def test_the_folder_is_plain_parquet_to_anybody(dataset: Dataset) -> None:
    """A report shows people where bad rows lie: what passes over names with an underscore can open that."""
    assert pd.read_parquet(folder_of(dataset))["k"].tolist() == [1, 2, 3, 2, 3]


def test_an_unknown_column_is_named(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"no column 'kk'(.|\n)*did you mean 'k'"):
        read_table(dataset, ["kk"])


def truncate(manifest: Path) -> None:
    manifest.write_bytes(manifest.read_bytes()[:-40])


def alter(manifest: Path) -> None:
    content = json.loads(manifest.read_text())
    content["contract"]["columns"][0]["name"] = "other"
    manifest.write_text(json.dumps(content))


def remove(manifest: Path) -> None:
    manifest.unlink()


def grow(manifest: Path) -> None:
    with (manifest.parent / "part-00001.parquet").open("ab") as file:
        file.write(b"x")


def lose(manifest: Path) -> None:
    (manifest.parent / "part-00000.parquet").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "not a manifest"),
        (alter, "digest does not match"),
        (remove, "there is no data set"),
        (grow, r"part-00001.parquet is not what was written"),
        (lose, r"part-00000.parquet is not what was written(.|\n)*no file"),
    ],
)
def test_damage_is_refused_by_every_door(
    dataset: Dataset, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder_of(dataset) / MANIFEST)
    with pytest.raises(StoreError, match=message):
        open_dataset(dataset.uri)
    for door in (dataset_files, read_table):
        with pytest.raises(StoreError, match=message):
            door(dataset)


def test_another_data_set_in_the_same_place_is_refused(dataset: Dataset) -> None:
    other = dataset.model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(StoreError, match="another data set"):
        read_table(other)


def test_bytes_that_changed_inside_a_file_are_refused(dataset: Dataset) -> None:
    """The size is the same; the checksum of a page is not."""
    path = folder_of(dataset) / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    column = parquet.read_metadata(path).row_group(0).column(0)
    content[column.data_page_offset + column.total_compressed_size - 1] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"part-00000.parquet cannot be read"):
        read_table(dataset)


def test_a_scheme_that_nothing_serves_is_refused(dataset: Dataset) -> None:
    with pytest.raises(StoreError, match="ftp"):
        open_dataset("ftp://host/x")
