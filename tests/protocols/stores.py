"""Stores for tests: a folder of this machine and a bucket of a real server, looked at from behind."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.references import Dataset
from ml_platform.store.folders import local_path, open_folder
from ml_platform.store.location import data_uri
from ml_platform.store.manifest import MANIFEST, FileEntry, Manifest, open_dataset
from ml_platform.store.part_file import write_part

ACCESS_KEY, SECRET_KEY = "canary-access-key", "canary-secret-key"


class Store(Protocol):
    """A store as nobody else sees it: every object below its URI, by its key."""

    uri: str

    def names(self) -> list[str]: ...

    def read(self, key: str) -> bytes: ...

    def write(self, key: str, content: bytes) -> None: ...

    def delete(self, key: str) -> None: ...

    def read_only(self) -> Any: ...


class LocalStore:
    def __init__(self, folder: Path) -> None:
        self.uri = folder.as_uri()
        self.path = folder

    def names(self) -> list[str]:
        files = (path for path in self.path.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.path)) for path in files)

    def read(self, key: str) -> bytes:
        return (self.path / key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        (self.path / key).write_bytes(content)

    def delete(self, key: str) -> None:
        (self.path / key).unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """The folders lose their write bits; the superuser, whom that does not stop, steps down."""
        below = [self.path, *self.path.rglob("*")]
        for path in below:
            path.chmod(0o555)
        with _as_somebody():
            yield
        for path in below:
            path.chmod(0o755)


class S3Store:
    def __init__(self, server: S3Server) -> None:
        self._bucket = f"bucket-{uuid.uuid4().hex}"
        self._client = server.client()
        self._client.create_bucket(Bucket=self._bucket)
        self.uri = f"s3://{self._bucket}/tables of ü"

    def names(self) -> list[str]:
        found = self._client.list_objects_v2(Bucket=self._bucket).get("Contents", [])
        return sorted(item["Key"].removeprefix("tables of ü/") for item in found)

    def uploads(self) -> list[Any]:
        """Uploads that nobody finished."""
        found: list[Any] = self._client.list_multipart_uploads(Bucket=self._bucket).get("Uploads", [])
        return found

    def begin_upload(self, key: str) -> None:
        """What a writer that was killed in the middle of a large file leaves."""
        self._client.create_multipart_upload(**self._at(key))

    def read(self, key: str) -> bytes:
        content: bytes = self._client.get_object(**self._at(key))["Body"].read()
        return content

    def write(self, key: str, content: bytes) -> None:
        self._client.put_object(**self._at(key), Body=content)

    def delete(self, key: str) -> None:
        self._client.delete_object(**self._at(key))

    @contextmanager
    def read_only(self) -> Iterator[None]:
        deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        self._client.put_bucket_policy(Bucket=self._bucket, Policy=policy)
        yield
        self._client.delete_bucket_policy(Bucket=self._bucket)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"tables of ü/{key}"}


class S3Server:
    """An S3 server process on a free port of the loopback interface."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=_plain_environment()
        )
        assert self.process.stderr is not None
        self._lines = iter(self.process.stderr.readline, "")
        self.url = next(line.split()[-1] for line in self._lines if "Running on" in line)
        # A full pipe would stop the server: somebody has to read its log.
        self._reader = threading.Thread(target=lambda: deque(self._lines, maxlen=0))
        self._reader.start()

    @property
    def environment(self) -> dict[str, str]:
        """What a person sets to use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )

    def close(self) -> None:
        assert self.process.stderr is not None
        self.process.terminate()
        assert self.process.wait(timeout=20) is not None
        self._reader.join()
        self.process.stderr.close()


def stored(name: str, *tables: pa.Table) -> Dataset:
    """A data set of one file per table, written as `write_dataset` does it, without Spark."""
    folder = open_folder(f"{data_uri()}/{name}/{uuid.uuid4().hex}")
    with folder.staged() as staged:
        parts = [
            write_part(table.to_batches(), f"{staged}attempt-{at}.parquet", table.schema)
            for at, table in enumerate(tables)
        ]
        names = folder.publish(
            staged, {f"attempt-{at}.parquet": f"part-{at}.parquet" for at in range(len(parts))}
        )
        folder.write_last(MANIFEST, manifest(tables, parts, list(names.values())))
    return open_dataset(folder.uri)


def manifest(tables: tuple[pa.Table, ...], parts: list[Any], names: list[str]) -> bytes:
    made = Manifest(
        contract=Contract(
            columns=tuple(Column(name=name, type="integer") for name in tables[0].column_names)
        ),
        rows=sum(table.num_rows for table in tables),
        files=tuple(FileEntry(name=name, **vars(part)) for name, part in zip(names, parts, strict=True)),
        fingerprint="f" * 64,
        spark_schema={},
        arrow_schema=base64.b64encode(tables[0].schema.serialize().to_pybytes()).decode(),
        created="2026-01-01T00:00:00+00:00",
    )
    return made.sealed().model_dump_json().encode()


def clear(store: Store) -> None:
    """Remove what a test left: local folders are removed with pytest's own."""
    for key in store.names():
        store.delete(key)
    if isinstance(store, LocalStore):
        shutil.rmtree(local_path(store.uri), ignore_errors=True)


@contextmanager
def _as_somebody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def _plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
