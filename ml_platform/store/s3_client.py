"""The way to S3-compatible storage: one client per process, errors as OSError, listings.

Endpoint, region and credentials come from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …) or from
where else boto3 looks. None of them stands in a URI, a key or an error.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

from ml_platform.errors import StoreError

SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
ATTEMPTS = 4


class Place(NamedTuple):
    """Where a URI points: an object, or all objects whose keys begin with `key/`."""

    bucket: str
    key: str

    @property
    def prefix(self) -> str:
        return f"{self.key}/" if self.key else ""


class Found(NamedTuple):
    """An object in a listing."""

    key: str
    bytes: int
    etag: str
    modified: float
    """Seconds since 1970, by the clock of the storage."""


def place(uri: str) -> Place:
    """Bucket and key of s3://bucket/key. Keys are taken as they are: nothing is percent-encoded.

    Raises:
        StoreError: It names no bucket, or holds a password.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if "@" in bucket:
        raise StoreError(
            "the URI of the store holds credentials",
            wanted="s3://bucket/folder",
            hint="put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if not uri.startswith("s3://") or not bucket:
        raise StoreError(f"{uri!r} names no bucket", wanted="s3://bucket/folder")
    return Place(bucket, key.strip("/"))


def client() -> Any:
    """A boto3 client for the environment of now. Safe to use from several threads.

    Raises:
        StoreError: boto3 cannot make sense of the environment.
    """
    named = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    # Not one for all processes: connections must not be shared after a fork.
    return _client(os.getpid(), named)


@lru_cache(maxsize=4)
def _client(pid: int, environment: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    own = any(os.environ.get(name) for name in ENDPOINTS)
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        # Buckets of one's own server are folders of it, seldom host names.
        s3={"addressing_style": "path" if own else "auto"},
        # Checksums in trailers, boto3's default, are refused by older servers.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        session = boto3.session.Session()
        return session.client("s3", config=config, region_name=session.region_name or "us-east-1")
    except (BotoCoreError, ValueError) as error:
        raise StoreError(
            "S3 cannot be used with the settings of this environment",
            got=type(error).__name__,
            hint="look at the variables whose names begin with AWS_, and at ~/.aws/config",
        ) from _scrubbed(error)


@contextmanager
def answers(uri: str) -> Iterator[None]:
    """Turn what boto3 raises inside into OSError: FileNotFoundError, PermissionError, FileExistsError, …"""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _refusal(uri, error) from _scrubbed(error)
    except (BotoCoreError, Boto3Error) as error:
        said = f"the S3 endpoint did not serve ({type(error).__name__})"
        raise OSError(errno.EIO, said, uri) from _scrubbed(error)


def listing(bucket: str, prefix: str) -> Iterator[Found]:
    """Every object whose key begins with `prefix`, in the order of keys. Raises as `answers` does."""
    with answers(f"s3://{bucket}/{prefix}"):
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                at = item["LastModified"].timestamp()
                yield Found(item["Key"], item["Size"], item["ETag"].strip('"'), at)


def remove_objects(bucket: str, prefix: str) -> None:
    """Remove every object whose key begins with `prefix`, and what was uploaded in part.

    What was written last goes first: a removal that is cut short leaves no readable data set.
    """
    found = sorted(listing(bucket, prefix), key=lambda item: item.key.endswith(".parquet"))
    with answers(f"s3://{bucket}/{prefix}"):
        for item in found:
            client().delete_object(Bucket=bucket, Key=item.key)
    drop_uploads(bucket, prefix)


def drop_uploads(bucket: str, prefix: str, *, before: float = float("inf")) -> None:
    """Drop uploads in parts that began before then and were not completed: they show in no listing."""
    with answers(f"s3://{bucket}/{prefix}"):
        pages = client().get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
        found = [upload for page in pages for upload in page.get("Uploads", ())]
        for upload in found:
            if upload["Initiated"].timestamp() < before:
                key, number = upload["Key"], upload["UploadId"]
                client().abort_multipart_upload(Bucket=bucket, Key=key, UploadId=number)


def _refusal(uri: str, error: Any) -> OSError:
    code = str(error.response.get("Error", {}).get("Code", "Unknown"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{code} ({error.operation_name})"
    if status == 404:
        return FileNotFoundError(errno.ENOENT, said, uri)
    if status in {401, 403}:
        return PermissionError(errno.EACCES, said, uri)
    if error.operation_name == "PutObject" and status in {409, 412}:
        return FileExistsError(errno.EEXIST, said, uri)
    return OSError(errno.EIO, said, uri)


def _scrubbed(error: BaseException) -> BaseException:
    """The error itself, its causes included, without endpoint and credentials in their texts."""
    named = [os.environ.get(name, "") for name in (*ENDPOINTS, *SECRETS)]
    secrets = [value for name in named for value in (name, name.rstrip("/")) if len(value) > 3]
    link: BaseException | None = error
    while link is not None:
        link.args = tuple(_without(secrets, part) if isinstance(part, str) else part for part in link.args)
        link = link.__cause__ or link.__context__
    return error


def _without(secrets: list[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
