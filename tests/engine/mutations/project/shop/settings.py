"""Imported for what it does."""

from __future__ import annotations

import decimal

decimal.getcontext().prec = 7


def configure() -> None:
    decimal.getcontext().Emax = 101


configure()
