"""Values of modules."""

from __future__ import annotations

import logging
import operator
import re
from datetime import timedelta
from decimal import Decimal
from functools import partial
from types import SimpleNamespace

import numpy as np

log = logging.getLogger(__name__)

RATE = 3
LABELS = ("small", "large")
ALLOWED = {2, 3, 5}
TABLE = {"a": {"deep": 1}, "b": {"deep": [2, 3]}}
WORDS = re.compile(r"[a-z]+")
SETTINGS = SimpleNamespace(level=4)
HIDDEN = 47
UNUSED = 48
ROUND = partial(round, ndigits=2)
WAIT = timedelta(seconds=53)
PRICE = Decimal("5.90")
WEIGHTS = np.array([1.5, 2.5])
pick = operator.itemgetter("size")


class Meter:
    def __init__(self, factor: int) -> None:
        self.factor = factor


METER = Meter(59)
