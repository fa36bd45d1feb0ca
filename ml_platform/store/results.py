"""Stored results: what a node gave, under what it was made of.

```
<store>/.results/<own>/<inputs>.json    one result; JSON, never a pickle
<store>/.results/code/<digest>.json     the code that made results, readable
```

`own` is the digest of what a node itself is, `inputs` that of what it was given. A file ends with the
sha256 of all bytes before it: one that was cut, edited or moved, or that a newer version of this package
wrote, counts as absent, and the node runs again. Nothing here looks at a clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from ml_platform.errors import StoreError
from ml_platform.specs.base import Spec
from ml_platform.store.location import data_uri
from ml_platform.store.objects import BUILDING, open_objects

FOLDER = ".results"
CODE = "code"

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Result(Spec):
    """One stored output."""

    # Infinity and NaN as they are: as null they would come back as something else.
    model_config = ConfigDict(ser_json_inf_nan="constants")

    format: Literal[1] = 1
    own: Digest
    inputs: Digest
    dag: str
    node: str
    task: str
    run: str
    output: Any = Field(description="JSON of the value.")
    identity: str = Field(description="Digest of what the output is, wherever it lies.")
    stamps: dict[str, str] = Field(description="What lay at each Location in the output, by URI.")
    parts: dict[str, str] = Field(description="What the own key was made of, readable.")
    code: str = Field("", description="Digest under which `Results.get_code` finds the code.")
    seconds: float
    created: str = Field(description="ISO 8601, UTC. For people: nothing is decided by it.")
    writers: dict[str, str] = Field({}, description="Versions of what wrote it.")
    digest: str = Field("", description="sha256 of the file's bytes before this field.")


@dataclass(frozen=True)
class Absent:
    """No result that may be used, and why."""

    reason: str


class Results:
    """All results of one store.

    Args:
        uri: Where they lie. Default: `.results` in the store.
    """

    def __init__(self, uri: str | None = None) -> None:
        self.uri = uri or f"{data_uri()}/{FOLDER}"
        self._objects = open_objects(self.uri)
        self._known_code: set[str] = set()

    def find(self, own: str, inputs: str) -> Result | Absent:
        """The result under these keys, or why there is none that may be used.

        Raises:
            StoreError: This kind of storage cannot be used at all from here.
        """
        try:
            content = self._objects.read(_key(own, inputs))
        except (FileNotFoundError, NotADirectoryError):
            return Absent("result missing")
        except OSError as error:
            return Absent(f"result cannot be read: {error.strerror or error}")
        found = opened(content)
        if isinstance(found, Result) and (found.own, found.inputs) != (own, inputs):
            return Absent("result file damaged: it holds the result of another key")
        return found

    def any(self, own: str) -> bool:
        """Whether anything is stored under this own key, for whatever inputs.

        Raises:
            StoreError: The store cannot be asked.
        """
        try:
            return self._objects.holds(own)
        except OSError as error:
            raise self._unreadable(error) from error

    def put(self, result: Result) -> None:
        """Store a result: whole, or not at all. One that is there is replaced.

        Raises:
            StoreError: The store is full or read-only.
        """
        self._write(_key(result.own, result.inputs), _sealed(result))

    def put_code(self, content: Mapping[str, Any]) -> str:
        """Keep the code behind results, once. Returns the digest that finds it.

        Raises:
            StoreError: The store is full or read-only.
        """
        text = _canonical(content)
        digest = hashlib.sha256(text).hexdigest()
        if digest not in self._known_code:
            if self.get_code(digest) is None:
                self._write(f"{CODE}/{digest}.json", text)
            self._known_code.add(digest)
        return digest

    def get_code(self, digest: str) -> dict[str, Any] | None:
        """What was kept under this digest; None when it is not there as it was written."""
        try:
            text = self._objects.read(f"{CODE}/{digest}.json")
        except OSError:
            return None
        if hashlib.sha256(text).hexdigest() != digest:
            return None
        content: dict[str, Any] = json.loads(text)
        return content

    def walk(self) -> Iterator[Result]:
        """Every result that may be used, in no order.

        Raises:
            StoreError: The store cannot be asked.
        """
        try:
            for entry in self._objects.walk():
                own, _, inputs = entry.key.removesuffix(".json").partition("/")
                if own != CODE and BUILDING not in inputs:
                    found = self.find(own, inputs)
                    if isinstance(found, Result):
                        yield found
        except OSError as error:
            raise self._unreadable(error) from error

    def _write(self, key: str, content: bytes) -> None:
        try:
            self._objects.write(key, content)
        except OSError as error:
            raise StoreError(
                f"a result cannot be written to {self.uri}",
                got=f"{type(error).__name__}: {error.strerror or error}",
                hint="free some space there, or name a folder that you may write in ML_PLATFORM_STORE",
            ) from error

    def _unreadable(self, error: OSError) -> StoreError:
        return StoreError(f"the results at {self.uri} cannot be read", got=error)


def _key(own: str, inputs: str) -> str:
    return f"{own}/{inputs}.json"


_SEAL = b',"digest":"'
_SEAL_BYTES = len(_SEAL) + 64 + len(b'"}')


def _sealed(result: Result) -> bytes:
    try:
        body = result.__pydantic_serializer__.to_json(result, exclude={"digest"})[:-1]
    except ValueError as error:
        raise StoreError(f"the output of {result.node!r} is no JSON", got=error) from error
    return b'%b%b%b"}' % (body, _SEAL, hashlib.sha256(body).hexdigest().encode())


def opened(content: bytes) -> Result | Absent:
    """What a result file holds, or why it counts as absent."""
    if sealed_body(content) is None:
        return Absent("result file damaged: its digest does not match its content")
    try:
        return Result.model_validate_json(content)
    except ValidationError:
        return Absent("result file of another format: another version of ml-platform wrote it")


def sealed_body(content: bytes) -> bytes | None:
    """The bytes that a result file's digest covers; None when they are not what was written."""
    body, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    return body if seal == b'%b%b"}' % (_SEAL, hashlib.sha256(body).hexdigest().encode()) else None


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
