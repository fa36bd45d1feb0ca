"""Hands on what it imports."""

from __future__ import annotations

from shop.chosen import passed as passed
