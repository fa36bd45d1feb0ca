"""What every kind of storage promises, on every kind: data sets, results and stamps."""

from __future__ import annotations

import io
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ml_platform.errors import DataError, StoreError
from ml_platform.store import s3_files
from ml_platform.store.folders import open_folder, open_sink, open_source, scheme_of
from ml_platform.store.location import data_uri
from ml_platform.store.manifest import MANIFEST, dataset_files, open_dataset, read_table
from ml_platform.store.part_file import write_part
from ml_platform.store.ranges import smallest_values
from ml_platform.store.results import Absent, Result, Results
from ml_platform.store.stamps import stamp
from tests.protocols.stores import ACCESS_KEY, SECRET_KEY, S3Server, S3Store, Store, manifest, stored
from tests.store.test_results import INPUTS, OTHER, OUTPUTS, OWN, Newer, result

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TABLE = pa.table({"k": pa.array([3, 1, None], pa.int64()), "s": ["a", None, "ü"]})


def mib(number: int) -> bytes:
    return random.Random(number).randbytes(number << 20)


def fail_to_write(uri: str, content: bytes) -> None:
    with open_sink(uri) as sink:
        sink.write(content)
        raise ZeroDivisionError


# Folders


def test_a_data_set_comes_back_and_leaves_nothing_else(store: Store) -> None:
    dataset = stored("table", TABLE, TABLE.slice(1))
    assert open_dataset(dataset.uri) == dataset
    assert read_table(dataset)["k"].to_pylist() == [3, 1, None, 1, None]
    assert read_table(dataset, ["s"]).column_names == ["s"]
    assert [file.rows for file in dataset_files(dataset)] == [3, 2]
    assert smallest_values(dataset, ["k"]) == {"k": 1.0}
    assert len(store.names()) == 3
    open_folder(dataset.uri).remove()
    assert store.names() == []


def test_files_that_are_not_named_are_dropped(store: Store) -> None:
    folder = open_folder(f"{data_uri()}/x/1")
    with folder.staged() as staged:
        for name in ("kept", "dropped"):
            with open_sink(f"{staged}{name}.parquet") as sink:
                sink.write(name.encode())
        names = folder.publish(staged, {"kept.parquet": "part-0.parquet"})
        folder.write_last(MANIFEST, b"{}")
    assert set(folder.sizes()) == {names["kept.parquet"], MANIFEST}
    assert folder.read(names["kept.parquet"]) == b"kept"
    assert len(store.names()) == 2


def test_a_failed_write_leaves_nothing(store: Store) -> None:
    def write(steps: int) -> None:
        folder = open_folder(f"{data_uri()}/x/1")
        with folder.staged() as staged:
            write_part(TABLE.to_batches(), f"{staged}a.parquet", TABLE.schema)
            if steps > 1:
                folder.publish(staged, {"a.parquet": "b.parquet"})
            if steps > 2:
                folder.write_last(MANIFEST, b"{}")
            raise ZeroDivisionError

    for steps in (1, 2, 3):
        with pytest.raises(ZeroDivisionError):
            write(steps)
        assert store.names() == []


def test_a_sink_that_fails_leaves_no_file(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_to_write(f"{data_uri()}/half", b"1" * 100)
    assert store.names() == []


def test_two_writers_of_one_folder_one_wins_whole(store: Store) -> None:
    """Both write at the same time; the loser removes its own files and no others."""
    uri = f"{data_uri()}/raced/1"
    barrier = threading.Barrier(2, timeout=30)
    lost: list[OSError] = []

    def write(value: int) -> None:
        folder, table = open_folder(uri), pa.table({"k": [value] * (value + 1)})
        try:
            with folder.staged() as staged:
                part = write_part(table.to_batches(), f"{staged}a.parquet", table.schema)
                barrier.wait()
                names = folder.publish(staged, {"a.parquet": "part-0.parquet"})
                folder.write_last(MANIFEST, manifest((table,), [part], list(names.values())))
        except OSError as error:
            lost.append(error)

    threads = [threading.Thread(target=write, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lost) == 1
    values = read_table(open_dataset(uri))["k"].to_pylist()
    assert values in ([1, 1], [2, 2, 2])
    assert len(store.names()) == 2


def test_the_last_object_is_never_replaced(store: Store) -> None:
    dataset = stored("table", TABLE)
    with pytest.raises(FileExistsError):
        open_folder(dataset.uri).write_last(MANIFEST, b"{}")
    assert open_dataset(dataset.uri) == dataset


KILLED = """
import os, sys
from tests.protocols import stores, test_store
from ml_platform.store import {module}
{module}.{name} = lambda *given, **named: os._exit(9)
stores.stored("killed", test_store.TABLE)
"""


@pytest.mark.parametrize("moment", ["before the manifest", "in a file"])
def test_a_killed_writer_leaves_nothing_readable(store: Store, moment: str) -> None:
    kind = type(open_folder(store.uri))
    name = "write_last" if moment == "before the manifest" else "publish"
    code = KILLED.format(module=kind.__module__.rpartition(".")[2], name=f"{kind.__name__}.{name}")
    ended = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path.cwd())
    assert ended.returncode == 9
    left = store.names()
    assert len(left) == 1
    with pytest.raises(StoreError, match="there is no data set"):
        open_dataset(f"{store.uri}/{left[0].rpartition('/')[0]}")


def cut(content: bytes) -> bytes:
    return content[:-1]


def flip(content: bytes) -> bytes:
    """The same size; the checksum of a page is another."""
    column = parquet.read_metadata(io.BytesIO(content)).row_group(0).column(0)
    at = column.data_page_offset + column.total_compressed_size - 1
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (".parquet", cut, "not what was written"),
        (".parquet", flip, "cannot be read"),
        (".parquet", None, r"not what was written(.|\n)*no file"),
        (MANIFEST, cut, "not a manifest"),
        (MANIFEST, None, "there is no data set"),
    ],
)
def test_damage_is_refused(
    store: Store, name: str, damage: Callable[[bytes], bytes] | None, message: str
) -> None:
    dataset = stored("table", TABLE)
    key = next(key for key in store.names() if key.endswith(name))
    if damage is None:
        store.delete(key)
    else:
        store.write(key, damage(store.read(key)))
    with pytest.raises(StoreError, match=message):
        read_table(dataset)


def test_a_manifest_of_a_newer_version_is_refused_with_a_reason(store: Store) -> None:
    dataset = stored("table", TABLE)
    key = next(key for key in store.names() if key.endswith(MANIFEST))
    store.write(key, store.read(key).replace(b'"format":1', b'"format":2'))
    with pytest.raises(StoreError, match="not a manifest of format 1"):
        open_dataset(dataset.uri)


def test_a_read_only_store_is_readable_and_says_so_when_written(store: Store) -> None:
    dataset = stored("table", TABLE)
    Results().put(result())
    with store.read_only():
        assert read_table(dataset).num_rows == 3
        assert isinstance(Results().find(OWN, INPUTS), Result)
        assert stamp(dataset.uri) is not None
        with pytest.raises(StoreError, match="PermissionError"):
            Results().put(result(own=OTHER))
        with pytest.raises((OSError, StoreError), match=r"ermission|AccessDenied|403"):
            stored("other", TABLE)
    assert len(store.names()) == 3


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import pyarrow as pa, random
from ml_platform.errors import StoreError
from tests.protocols.stores import stored
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try: stored("full", pa.table({"x": [random.randbytes(1000) for _ in range(1000)]}))
except StoreError as error: print(error)
"""


def test_a_full_disk_in_the_middle_of_a_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file of the process may grow beyond 100 kB: the write stops part way, as on a full disk."""
    monkeypatch.setenv("ML_PLATFORM_STORE", str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", FULL], check=True, capture_output=True, text=True)
    assert "cannot be written" in ended.stdout
    assert "File too large" in ended.stdout
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# Files


def test_files_are_read_anywhere(store: Store) -> None:
    content = random.Random(0).randbytes(5000)
    with open_sink(f"{store.uri}/file") as sink:
        for start in range(0, len(content), 999):
            sink.write(content[start : start + 999])
    source = open_source(f"{store.uri}/file")
    with io.FileIO(source) if isinstance(source, str) else source as file:
        check_reads(file, content)


def check_reads(file: Any, content: bytes) -> None:
    for start, size in ((0, 10), (4990, 100), (2500, 1), (5000, 5), (100, 4000)):
        assert file.seek(start) == start
        assert file.read(size) == content[start : start + size]
    assert file.seek(-3, io.SEEK_END) == 4997
    assert file.seek(1, io.SEEK_CUR) == 4998
    assert file.read() == content[4998:]


def test_ranks_read_packed_features_from_it(store: Store) -> None:
    from ml_platform.worker.feed import open_feed

    values = np.arange(12, dtype="<f4").reshape(4, 3)
    features = pa.array([row.tobytes() for row in values], pa.binary(12))
    table = pa.table({"label": pa.array([0, 1, 2, 3], pa.int32()), "features": features})
    feed = open_feed(stored("packed", table.slice(0, 3), table.slice(3)))
    read = [rows for rank in range(2) for rows in feed.span(rank=rank, world_size=2)]
    assert np.array_equal(np.concatenate([rows.features for rows in read]), values)
    assert np.concatenate([rows.labels for rows in read]).tolist() == [0, 1, 2, 3]


def test_ranks_name_the_file_that_is_gone(store: Store) -> None:
    from ml_platform.worker.feed import Feed

    table = pa.table({"label": pa.array([0], pa.int32()), "features": pa.array([b"1234"], pa.binary(4))})
    files = dataset_files(stored("packed", table))
    store.delete(next(key for key in store.names() if key.endswith(".parquet")))
    with pytest.raises(DataError, match=r"parquet cannot be read as Parquet"):
        Feed(files)


# Results and stamps


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_was_put_is_found(store: Store, output: Any) -> None:
    put = result(output=output)
    assert not Results().any(OWN)
    Results().put(put)
    found = Results().find(OWN, INPUTS)
    assert isinstance(found, Result)
    assert found.model_copy(update={"digest": ""}) == put
    assert (Results().any(OWN), Results().any(OTHER)) == (True, False)
    assert store.names() == [f".results/{OWN}/{INPUTS}.json"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-1], "damaged"),
        (lambda content: b"", "damaged"),
        (lambda content: content.replace(b"brave", b"grave"), "damaged"),
        (None, "result missing"),
    ],
)
def test_a_damaged_result_counts_as_absent(
    store: Store, damage: Callable[[bytes], bytes] | None, reason: str
) -> None:
    Results().put(result())
    (key,) = store.names()
    if damage is None:
        store.delete(key)
    else:
        store.write(key, damage(store.read(key)))
    found = Results().find(OWN, INPUTS)
    assert isinstance(found, Absent)
    assert reason in found.reason
    assert not list(Results().walk())


def test_a_result_of_a_newer_version_counts_as_absent(store: Store) -> None:
    Results().put(Newer(**result().model_dump()))
    found = Results().find(OWN, INPUTS)
    assert isinstance(found, Absent)
    assert "another version" in found.reason


def test_walk_and_code(store: Store) -> None:
    results = Results()
    keys = {(own, inputs) for own in (OWN, OTHER) for inputs in (OWN, INPUTS)}
    for own, inputs in keys:
        results.put(result(own, inputs))
    digest = results.put_code({"a": "def a(): ..."})
    assert {(found.own, found.inputs) for found in results.walk()} == keys
    assert results.get_code(digest) == {"a": "def a(): ..."}
    assert results.get_code(OTHER) is None
    store.write(f".results/code/{digest}.json", b"{}")
    assert results.get_code(digest) is None


def test_stamps_change_with_what_lies_there(store: Store) -> None:
    dataset = stored("table", TABLE)
    file = next(file.uri for file in dataset_files(dataset))
    key = next(key for key in store.names() if key.endswith(".parquet"))
    seen = [(stamp(dataset.uri), stamp(file))]
    assert (stamp(dataset.uri), stamp(file)) == seen[0]
    store.write(key, flip(store.read(key)))
    seen.append((stamp(dataset.uri), stamp(file)))
    store.write(key, cut(store.read(key)))
    seen.append((stamp(dataset.uri), stamp(file)))
    store.delete(key)
    assert stamp(file) is None
    folders = [folder for folder, _ in seen] + [stamp(dataset.uri)]
    assert len(set(folders)) == 4
    assert len({one for _, one in seen}) == 3
    open_folder(dataset.uri).remove()
    assert stamp(dataset.uri) is None
    assert stamp(f"{store.uri}/nowhere") is None


# With Spark


@pytest.mark.spark
def test_spark_writes_and_reads_every_type(store: Store, spark_at_store: SparkSession) -> None:
    from ml_platform.store.datasets import spark_frame, write_dataset
    from tests.store.test_datasets import DDL, ROW, TYPES

    frame = spark_at_store.createDataFrame([ROW, tuple(None for _ in ROW)], DDL)
    dataset = write_dataset(frame, name="types", label="s")
    assert dataset.uri.startswith(store.uri) or scheme_of(store.uri) == "file"
    assert [column.type for column in dataset.contract.columns] == TYPES.split()
    back = spark_frame(spark_at_store, dataset)
    assert back.schema == frame.schema
    assert sorted(back.collect(), key=str) == sorted(frame.collect(), key=str)
    assert read_table(dataset).num_rows == 2


@pytest.mark.spark
def test_the_fingerprint_is_the_same_on_every_store(
    store: Store, spark_at_store: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml_platform.store.datasets import spark_frame, write_dataset

    frame = spark_at_store.range(0, 1000, 1, 3).selectExpr("id", "sqrt(id) as x", "string(id % 7) as s")
    here = write_dataset(frame, name="here")
    monkeypatch.setenv("ML_PLATFORM_STORE", str(tmp_path))
    there = write_dataset(spark_frame(spark_at_store, here).repartition(2), name="there")
    assert (there.fingerprint, there.rows, there.contract) == (here.fingerprint, 1000, here.contract)


@pytest.mark.spark
def test_packed_columns_come_back_through_spark(store: Store, spark_at_store: SparkSession) -> None:
    from ml_platform.store.datasets import spark_frame, write_dataset

    values = np.arange(6, dtype="<f4").reshape(2, 3)
    rows = [(at, row.tobytes()) for at, row in enumerate(values)]
    frame = spark_at_store.createDataFrame(rows, "label int, x binary")
    dataset = write_dataset(frame, name="packed", packed={"x": 3})
    back = spark_frame(spark_at_store, dataset).orderBy("label").collect()
    assert [(row.label, bytes(row.x)) for row in back] == rows
    assert dataset.contract["x"].width == 3


@pytest.mark.spark
def test_an_empty_frame_and_a_failing_one(store: Store, spark_at_store: SparkSession) -> None:
    from ml_platform.store.datasets import spark_frame, write_dataset

    empty = write_dataset(spark_at_store.range(0), name="empty")
    assert spark_frame(spark_at_store, empty).count() == 0
    before = store.names()
    with pytest.raises(StoreError, match="DIVIDE_BY_ZERO"):
        write_dataset(spark_at_store.range(0, 9, 1, 3).selectExpr("1 div (id - 8) as x"), name="failing")
    assert store.names() == before


@pytest.mark.spark
def test_a_file_that_is_gone_is_named_by_spark(store: Store, spark_at_store: SparkSession) -> None:
    from ml_platform.store.datasets import spark_frame, write_dataset
    from ml_platform.store.spark_failures import spark_failures

    frame = spark_frame(spark_at_store, write_dataset(spark_at_store.range(3), name="gone"))
    for key in [key for key in store.names() if key.endswith(".parquet")]:
        store.delete(key)
    with pytest.raises((StoreError, DataError), match="parquet"), spark_failures("it was not read"):
        frame.collect()


# S3 alone


@pytest.fixture
def bucket(s3_environment: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    made = S3Store(s3_environment)
    monkeypatch.setenv("ML_PLATFORM_STORE", made.uri)
    return made


@pytest.mark.slow
def test_large_files_go_in_parts_and_failed_ones_leave_none(bucket: S3Store) -> None:
    content = mib(2 * (s3_files.PART_BYTES >> 20) + 1)
    with open_sink(f"{bucket.uri}/large") as sink:
        for start in range(0, len(content), 7 << 20):
            sink.write(content[start : start + (7 << 20)])
    assert bucket.read("large") == content
    with pytest.raises(ZeroDivisionError):
        fail_to_write(f"{bucket.uri}/failed", content)
    assert (bucket.names(), bucket.uploads()) == (["large"], [])


@pytest.mark.slow
def test_a_file_that_is_replaced_while_it_is_read_is_an_error(bucket: S3Store) -> None:
    bucket.write("file", b"1" * 100)
    source: Any = open_source(f"{bucket.uri}/file")
    assert source.read(10) == b"1" * 10
    bucket.write("file", b"2" * 100)
    with pytest.raises(OSError, match="PreconditionFailed"):
        source.read(10)


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_named(s3_environment: S3Server) -> None:
    with pytest.raises(StoreError, match="NoSuchBucket"):
        Results("s3://nowhere-at-all/x").put(result())
    found = Results("s3://nowhere-at-all/x").find(OWN, INPUTS)
    assert isinstance(found, Absent)


@pytest.mark.slow
def test_no_error_shows_where_the_server_is_or_the_keys_to_it(
    bucket: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:canary-password@127.0.0.1:{port}")
        with pytest.raises(StoreError) as raised:
            Results().put(result())
        with pytest.raises(StoreError):
            open_dataset(f"{bucket.uri}/x")
    shown, link = "", raised.value
    while link is not None:
        shown += f"{link}\n"
        link = link.__cause__ or link.__context__  # type: ignore[assignment]
    assert "did not serve" in shown
    for secret in (ACCESS_KEY, SECRET_KEY, "canary-password", "@127.0.0.1"):
        assert secret not in shown


def test_settings_that_boto3_cannot_read_are_a_store_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody-has-this-profile")
    with pytest.raises(StoreError, match=r"settings of this environment(.|\n)*ProfileNotFound"):
        Results("s3://bucket/x").put(result())


@pytest.mark.parametrize("uri", ["s3://key:canary@bucket/x", "s3:///x", "s3:/x"])
def test_uris_that_cannot_be_are_refused(uri: str) -> None:
    with pytest.raises(StoreError, match=r"credentials|names no bucket") as raised:
        open_folder(uri)
    assert "canary" not in str(raised.value)


@pytest.mark.slow
def test_the_environment_of_now_counts(bucket: S3Store) -> None:
    """A client of a former environment is not kept."""
    from ml_platform.store.s3_client import client

    before = client()
    assert client() is before
    os.environ["AWS_SESSION_TOKEN"] = "another"
    try:
        assert client() is not before
    finally:
        del os.environ["AWS_SESSION_TOKEN"]
