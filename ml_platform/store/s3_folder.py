"""A data set's folder on S3-compatible storage.

Nothing can be renamed there, so files are written under their last names, which begin with the writer's
own mark. What no manifest names does not count, and a manifest is put there only where there is none.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress

from ml_platform.store.folders import Sink, Source
from ml_platform.store.s3_client import answers, client, listing, place, remove_objects
from ml_platform.store.s3_files import S3File, upload


class S3Folder:
    """All objects whose keys begin with that of the folder."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._at = place(uri)
        self._written_last = ""

    @staticmethod
    def open_sink(uri: str) -> AbstractContextManager[Sink]:
        return upload(uri)

    @staticmethod
    def open_source(uri: str) -> Source:
        return S3File(uri)

    @contextmanager
    def staged(self) -> Iterator[str]:
        mark = f"{uuid.uuid4().hex[:12]}-"
        try:
            yield f"{self.uri}/{mark}"
        except BaseException:
            # The error that is on its way must reach the person, not ours.
            with suppress(OSError):
                self._take_back(mark)
            raise

    def publish(self, staged: str, names: Mapping[str, str]) -> Mapping[str, str]:
        mark = staged.removeprefix(f"{self.uri}/")
        published = {attempt: f"{mark}{attempt}" for attempt in names}
        for found in list(listing(self._at.bucket, f"{self._at.prefix}{mark}")):
            if found.key.removeprefix(self._at.prefix) not in published.values():
                self._delete(found.key)
        return published

    def write_last(self, name: str, content: bytes) -> None:
        key = f"{self._at.prefix}{name}"
        try:
            with answers(self.file_uri(name)):
                client().put_object(Bucket=self._at.bucket, Key=key, Body=content, IfNoneMatch="*")
        except FileExistsError:
            # An answer that was lost makes boto3 ask again: then it is our own that lies there.
            if self.read(name) != content:
                raise
        self._written_last = name

    def read(self, name: str) -> bytes:
        with answers(self.file_uri(name)):
            answer = client().get_object(Bucket=self._at.bucket, Key=f"{self._at.prefix}{name}")
            content: bytes = answer["Body"].read()
        return content

    def sizes(self) -> Mapping[str, int]:
        start = len(self._at.prefix)
        return {found.key[start:]: found.bytes for found in listing(self._at.bucket, self._at.prefix)}

    def file_uri(self, name: str) -> str:
        return f"{self.uri}/{name}"

    def remove(self) -> None:
        remove_objects(self._at.bucket, self._at.prefix)

    def _take_back(self, mark: str) -> None:
        if self._written_last:
            self._delete(f"{self._at.prefix}{self._written_last}")
        remove_objects(self._at.bucket, f"{self._at.prefix}{mark}")

    def _delete(self, key: str) -> None:
        with answers(f"s3://{self._at.bucket}/{key}"):
            client().delete_object(Bucket=self._at.bucket, Key=key)
