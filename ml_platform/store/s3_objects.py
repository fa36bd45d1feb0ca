"""Small objects and stamps on S3-compatible storage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ml_platform.errors import StoreError
from ml_platform.store.objects import Entry
from ml_platform.store.s3_client import answers, client, drop_uploads, listing, place


class S3Objects:
    """Objects below one prefix. A write is whole or not at all: S3 knows nothing between."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._at = place(uri)

    def read(self, key: str) -> bytes:
        with answers(f"{self.uri}/{key}"):
            answer = client().get_object(Bucket=self._at.bucket, Key=f"{self._at.prefix}{key}")
            content: bytes = answer["Body"].read()
        return content

    def write(self, key: str, content: bytes) -> None:
        with answers(f"{self.uri}/{key}"):
            client().put_object(Bucket=self._at.bucket, Key=f"{self._at.prefix}{key}", Body=content)

    def holds(self, prefix: str) -> bool:
        with answers(f"{self.uri}/{prefix}"):
            answer = client().list_objects_v2(
                Bucket=self._at.bucket, Prefix=f"{self._at.prefix}{prefix}/", MaxKeys=1
            )
        return bool(answer.get("Contents"))

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        below = f"{self._at.prefix}{prefix}/" if prefix else self._at.prefix
        start = len(self._at.prefix)
        for found in listing(self._at.bucket, below):
            yield Entry(found.key[start:], found.bytes, found.modified)

    def drop_uploads(self, before: float) -> None:
        drop_uploads(self._at.bucket, self._at.prefix, before=before)

    def remove(self, key: str) -> None:
        with answers(f"{self.uri}/{key}"):
            client().delete_object(Bucket=self._at.bucket, Key=f"{self._at.prefix}{key}")


def stamp(uri: str) -> str | None:
    """Of an object: size and etag. Of a folder: a digest over key, size and etag of all below.

    Raises:
        StoreError: The storage cannot be asked.
    """
    at = place(uri)
    try:
        below = [(found.key, found.bytes, found.etag) for found in listing(at.bucket, at.prefix)]
        if below:
            return f"folder {hashlib.sha256(repr(below).encode()).hexdigest()}"
        with answers(uri):
            facts = client().head_object(Bucket=at.bucket, Key=at.key)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{uri} cannot be looked at", got=error.strerror) from error
    return f"object {facts['ContentLength']}-{facts['ETag']}"
