"""What `doctor` finds: one value per check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field

from ml_platform.specs.base import Spec

Status = Literal["ok", "warn", "block"]


class Check(Spec):
    """One look at the machine."""

    name: str
    status: Status = Field(description="block: a run would fail. warn: it runs, with less.")
    found: str
    wanted: str
    reason: str = Field("", description="What it means. Empty when nothing has to be said.")
    next_step: str = Field("", description="What to do about it.")


Examiner = Callable[[], Sequence[Check]]
