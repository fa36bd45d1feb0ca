"""Names the module that its package names through it."""

from __future__ import annotations

from shop.nest import inner as inner
