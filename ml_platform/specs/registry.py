"""Tables of names: what is written as "module:attribute" is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import Any


def load_named(target: str) -> Any:
    """The object that "module:attribute" names; its module is imported now if it was not before."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
