"""A package that hands on a module of its own."""

from __future__ import annotations

from shop import registry
from shop.nest.api import inner as inner

registry.TABLE["nest"] = 191
