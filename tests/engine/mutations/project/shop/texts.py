"""Text that is data."""

from __future__ import annotations

from pydantic import BaseModel, Field

HIDDEN = 127


def query() -> None:
    """SELECT 1"""


class Asked(BaseModel):
    pieces: int = Field(1, description="How many.")


def schema() -> str:
    return str(Asked.model_json_schema())
