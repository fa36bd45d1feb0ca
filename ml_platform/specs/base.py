"""The one base class of all values: frozen, and strict about names."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A value that says *what*. No I/O, comparable, printable, JSON both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid")
