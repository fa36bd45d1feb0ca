"""Tables that lie elsewhere: copied to this machine before they are read, and again when they have changed.

A copy lies in `sources` below the platform's folder, one per URI; it may be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from ml_platform.data.secret_uris import check_no_secret, filled, without_secrets
from ml_platform.errors import DataError, SpecError, StoreError
from ml_platform.resources.progress import report
from ml_platform.specs.registry import load_named
from ml_platform.store.location import home

CHUNK_BYTES = 1 << 22
REMOTES: Mapping[str, str] = {
    "http": "ml_platform.data.remote:Web",
    "https": "ml_platform.data.remote:Web",
    "s3": "ml_platform.data.remote:S3",
}
"""Kinds of places by scheme, imported on first use."""
OTHERS = "ml_platform.data.remote:Other"


class Remote(Protocol):
    """A file elsewhere, or a folder of files."""

    def __init__(self, uri: str) -> None: ...

    def versions(self) -> dict[str, str]:
        """Of each file, by its name below the folder; another one is another content.

        Raises:
            OSError: It cannot be asked. FileNotFoundError: there is nothing.
        """

    def copy(self, name: str, to: Path) -> None:
        """One of these files, whole. Raises OSError."""


def fetched(uri: str) -> Path:
    """A copy of the file, or of the folder, at `uri`, as it is now; `${NAME}` there is a secret.

    Raises:
        DataError: There is nothing.
        SpecError: Nobody can read this kind of URI, it holds a secret, or names one that nobody has.
        StoreError: It cannot be reached, or there is no room for it here.
    """
    from filelock import FileLock

    check_no_secret(uri)
    parts, shown = urlsplit(uri), without_secrets(uri)
    with filled(uri) as address, _explained(shown):
        remote = _remote(address)
        versions = remote.versions()
        folder = home() / "sources" / _digest(uri)
        place = folder / _digest(json.dumps(versions, sort_keys=True))
        name = PurePosixPath(unquote(parts.path)).name or parts.netloc
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            if not place.exists():
                report(f"copying {shown}")
                _copy(remote, versions, name, place)
    return place / name


def _copy(remote: Remote, versions: Mapping[str, str], name: str, place: Path) -> None:
    """All files, or none. Copies of earlier contents go."""
    earlier = [path for path in place.parent.iterdir() if path.is_dir()]
    staged = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        for file in versions:
            if ".." in PurePosixPath(file).parts:
                raise OSError(f"a name that leads out of the folder: {file}")
            target = staged / name / file if file else staged / name
            target.parent.mkdir(parents=True, exist_ok=True)
            remote.copy(file, target)
        staged.rename(place)
    finally:
        for path in (staged, *earlier):
            shutil.rmtree(path, ignore_errors=True)


def _remote(uri: str) -> Remote:
    kind: type[Remote] = load_named(REMOTES.get(urlsplit(uri).scheme, OTHERS))
    return kind(uri)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"there is no file {uri}", got=error.strerror or error) from error
    except OSError as error:
        raise StoreError(
            f"{uri} cannot be read", got=f"{type(error).__name__}: {error.strerror or error}"
        ) from error


class Web:
    """A file that a web server hands out."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def versions(self) -> dict[str, str]:
        """What the server says of its age. A server that says nothing is asked for all of it, each time."""
        said = self._said()
        if said[0] or said[1]:
            return {"": " ".join(said)}
        with self._answer("GET") as answer:
            return {"": hashlib.file_digest(answer, "sha256").hexdigest()}

    def _said(self) -> tuple[str, str, str]:
        """ETag, date and bytes. Addresses signed for GET refuse HEAD: of those one byte is asked for."""
        try:
            with self._answer("HEAD") as answer:
                size = answer.headers.get("Content-Length", "")
        except OSError:
            with self._answer("GET", {"Range": "bytes=0-0"}) as answer:
                size = answer.headers.get("Content-Range", "").rpartition("/")[2]
        return answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""), size

    def copy(self, name: str, to: Path) -> None:
        with self._answer("GET") as answer, to.open("wb") as file:
            shutil.copyfileobj(answer, file, CHUNK_BYTES)
            wanted = answer.headers.get("Content-Length")
        if wanted is not None and to.stat().st_size != int(wanted):
            raise OSError(f"{to.stat().st_size} of {wanted} bytes came")

    @contextmanager
    def _answer(self, method: str, headers: Mapping[str, str] | None = None) -> Iterator[Any]:
        from urllib.error import HTTPError
        from urllib.request import Request, urlopen

        try:
            with urlopen(
                Request(self._uri, headers=dict(headers or {}), method=method), timeout=60
            ) as answer:
                yield answer
        except HTTPError as error:
            raised = FileNotFoundError if error.code in {404, 410} else OSError
            raise raised(f"the server answered {error.code} {error.reason}") from error


class S3:
    """An object, or all objects below a folder. Credentials are those of the store."""

    def __init__(self, uri: str) -> None:
        from ml_platform.store.s3_client import place

        self._uri, self._at = uri.rstrip("/"), place(uri)

    def versions(self) -> dict[str, str]:
        from ml_platform.store.s3_client import listing

        found = {item.key: item.etag for item in listing(self._at.bucket, self._at.key)}
        if self._at.key in found:
            return {"": found[self._at.key]}
        below = {
            key.removeprefix(self._at.prefix): etag
            for key, etag in found.items()
            if key.startswith(self._at.prefix) and not key.endswith("/")
        }
        if not below:
            raise FileNotFoundError("no object has this key, and none lies below it")
        return below

    def copy(self, name: str, to: Path) -> None:
        from ml_platform.store.s3_files import S3File

        with S3File(f"{self._uri}/{name}".rstrip("/")) as source, to.open("wb") as file:
            shutil.copyfileobj(source, file, CHUNK_BYTES)


class Other:
    """Whatever fsspec knows how to reach."""

    def __init__(self, uri: str) -> None:
        import fsspec

        try:
            self._system, self._path = fsspec.core.url_to_fs(uri)
        except (ValueError, ImportError) as error:
            raise SpecError(
                f"cannot read {urlsplit(uri).scheme}://",
                wanted="a file, a folder, sklearn:NAME, or a URI that fsspec reads",
                got=error,
            ) from error

    def versions(self) -> dict[str, str]:
        if self._system.isfile(self._path):
            return {"": self._system.ukey(self._path)}
        found = self._system.find(self._path)
        if not found:
            raise FileNotFoundError("there is nothing")
        return {self._below(path): self._system.ukey(path) for path in found}

    def copy(self, name: str, to: Path) -> None:
        self._system.get_file(f"{self._path}/{name}".rstrip("/"), str(to))

    def _below(self, path: str) -> str:
        return path.removeprefix(self._path).strip("/")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
