"""Files on S3-compatible storage: written in parts as they come, read in the ranges that are asked for."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ml_platform.store.s3_client import answers, client, place

PART_BYTES = 16 << 20
"""A file has 10,000 parts at most: 160 GB from one Spark partition."""


@contextmanager
def upload(uri: str) -> Iterator[S3Upload]:
    """A new object; it is there when the block ends, and was never there when the block fails."""
    sink = S3Upload(uri)
    try:
        yield sink
        sink.commit()
    except BaseException:
        with suppress(OSError):
            sink.abort()
        raise


class S3Upload:
    """An object that is being written. In memory: one part."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._at = place(uri)
        self._held = bytearray()
        self._upload = ""
        self._parts: list[dict[str, Any]] = []

    def write(self, content: Any) -> int:
        view = memoryview(content)
        self._held += view
        while len(self._held) >= PART_BYTES:
            self._send(PART_BYTES)
        return view.nbytes

    def commit(self) -> None:
        target = {"Bucket": self._at.bucket, "Key": self._at.key}
        if not self._upload:
            with answers(self._uri):
                client().put_object(**target, Body=bytes(self._held))
            return
        if self._held:
            self._send(len(self._held))
        with answers(self._uri):
            client().complete_multipart_upload(
                **target, UploadId=self._upload, MultipartUpload={"Parts": self._parts}
            )
        self._upload = ""

    def abort(self) -> None:
        """Give back the room of parts that were sent."""
        if self._upload:
            with answers(self._uri):
                client().abort_multipart_upload(
                    Bucket=self._at.bucket, Key=self._at.key, UploadId=self._upload
                )

    def _send(self, size: int) -> None:
        target = {"Bucket": self._at.bucket, "Key": self._at.key}
        with answers(self._uri):
            if not self._upload:
                self._upload = client().create_multipart_upload(**target)["UploadId"]
            number = len(self._parts) + 1
            body = bytes(self._held[:size])
            sent = client().upload_part(**target, UploadId=self._upload, PartNumber=number, Body=body)
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        del self._held[:size]


class S3File(io.RawIOBase):
    """An object, open for reading anywhere in it. An object that is replaced meanwhile is an error.

    Raises:
        OSError: It is not there (FileNotFoundError), or cannot be read.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._at = place(uri)
        self._position = 0
        with answers(uri):
            facts = client().head_object(Bucket=self._at.bucket, Key=self._at.key)
        self._size: int = facts["ContentLength"]
        self._etag: str = facts["ETag"]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._size - self._position)
        if wanted <= 0:
            return 0
        content = self._range(self._position, wanted)
        view[:wanted] = content
        self._position += wanted
        return wanted

    def _range(self, start: int, size: int) -> bytes:
        with answers(self._uri):
            answer = client().get_object(
                Bucket=self._at.bucket,
                Key=self._at.key,
                Range=f"bytes={start}-{start + size - 1}",
                IfMatch=self._etag,
            )
            content: bytes = answer["Body"].read()
        if len(content) != size:
            raise OSError(errno.EIO, f"{len(content)} of {size} bytes came back", self._uri)
        return content
