"""Puts functions of the shop into packages."""

from __future__ import annotations

import fractions
import html

import shop.settings  # noqa: F401


def _escaped(text: str) -> str:
    return f"{text}!"


def _doubled(self: fractions.Fraction) -> fractions.Fraction:
    return self * 2


html.escape = _escaped  # type: ignore[assignment]
fractions.Fraction.doubled = _doubled  # type: ignore[attr-defined]
