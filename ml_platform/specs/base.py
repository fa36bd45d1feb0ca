"""The one base class of all values: frozen, and strict about names."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict


class NotIdentity:
    """Marks a field that says where something is, or how it came about, and not what it is."""


class AtUri(NotIdentity):
    """Marks the field that holds the URI of what the value stands for."""


Location = Annotated[str, AtUri()]
"""A URI. No part of a value's identity; a stored value counts only while what lies there is unchanged."""


class Spec(BaseModel):
    """A value that says *what*. No I/O, comparable, printable, JSON both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        # Prefect walks parameters with dict(value), which calls `keys` where there is one.
        if "keys" in cls.model_fields:
            raise TypeError(f"{cls.__name__}.keys: Prefect would take it for the method of a mapping")
