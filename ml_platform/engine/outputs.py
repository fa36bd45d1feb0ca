"""What a node gave: in memory after a run, or in the store until somebody asks for the value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from ml_platform.engine.graph import SKIPPED, Reference
from ml_platform.engine.keys import NoIdentityError, value_digest
from ml_platform.errors import StoreError
from ml_platform.store.results import Result


class Output:
    """An output with its identity. `result` is where it is stored, if it is."""

    def __init__(self, value: Any = SKIPPED, *, result: Result | None = None, type_: Any = None) -> None:
        self.result = result
        self._value = value
        self._type = type_
        self._identities: dict[tuple[str | int, ...], str | None] = {}
        self._whole: dict[tuple[str | int, ...], str | None] = {}
        if result is not None:
            self._identities[()] = result.identity

    @property
    def skipped(self) -> bool:
        """Whether the branch of its node was not taken."""
        return self._value is SKIPPED and self.result is None

    @property
    def known_identity(self) -> str:
        """Its identity if somebody has asked for it already; else empty."""
        return self._identities.get(()) or ""

    @property
    def value(self) -> Any:
        """The value; read from the store at its first use.

        Raises:
            StoreError: What is stored is not what the task's type says.
        """
        if self._value is SKIPPED and self.result is not None:
            self._value = _validated(self.result, self._type)
        return self._value

    def identity(self, path: tuple[str | int, ...] = (), *, whole: bool = False) -> str | None:
        """Digest of what this output, or a part of it, is. None when nothing can tell.

        Skipped is not None: `either` tells them apart.

        Args:
            whole: Of all that it says, also of where it lies and how it came about.
        """
        if self.result is None and self._value is SKIPPED:
            return value_digest(SKIPPED)
        known = self._whole if whole else self._identities
        if path not in known:
            part = Reference("it", path).resolve({"it": self.value})
            try:
                known[path] = value_digest(part, whole=whole)
            except NoIdentityError:
                known[path] = None
        return known[path]


class ListOutput(Output):
    """Outputs of the nodes that one mapped node became."""

    def __init__(self, members: Sequence[Output]) -> None:
        super().__init__([member.value for member in members])


class Values(Mapping[str, Any]):
    """The values behind outputs, by node; each is read when it is asked for."""

    def __init__(self, outputs: Mapping[str, Output]) -> None:
        self._outputs = outputs

    def __getitem__(self, node: str) -> Any:
        return self._outputs[node].value

    def __iter__(self) -> Any:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)


def to_json(output: Output, type_: Any) -> Any:
    """The value of an output as JSON that gives it back, whole.

    Raises:
        NoIdentityError: It does not come back as what it was, so it cannot be stored.
    """
    value = output.value
    if value is None or type(value) in (bool, int, str):
        return value
    try:
        content = adapter(type_).dump_python(value, mode="json")
        back = adapter(type_).validate_json(_JSON.dump_json(content), strict=True)
    except (ValueError, TypeError) as error:
        raise NoIdentityError(f"the output is no JSON: {error}") from error
    if value_digest(back) != (output.identity() or value_digest(value)):
        raise NoIdentityError("the output does not come back from JSON as it was")
    return content


# Infinity and NaN as they are: as null they would come back as something else.
_JSON: TypeAdapter[Any] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants"))


def _validated(result: Result, type_: Any) -> Any:
    try:
        return adapter(type_).validate_json(_JSON.dump_json(result.output), strict=True)
    except ValidationError as error:
        raise StoreError(
            f"the stored output of {result.node} is not what its task returns now",
            got=error,
            hint=f"run it again: --force {result.node}",
        ) from error


@lru_cache(maxsize=512)
def adapter(annotation: Any) -> TypeAdapter[Any]:
    """What checks and converts values of a type; anything goes where pydantic knows no schema."""
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, SchemaError):
        return TypeAdapter(Any)
    except Exception as error:
        if getattr(error, "code", "") == "type-adapter-config-unused":
            return TypeAdapter(annotation)
        raise
