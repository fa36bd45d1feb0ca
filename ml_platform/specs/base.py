"""The one base class of all values: frozen, and strict about names."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A value that says *what*. No I/O, comparable, printable, JSON both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        # Prefect walks parameters with dict(value), which calls `keys` where there is one.
        if "keys" in cls.model_fields:
            raise TypeError(f"{cls.__name__}.keys: Prefect would take it for the method of a mapping")
