"""Names that no statement of their own defines."""

from __future__ import annotations

import sys

LEFT, RIGHT = 131, 137
if sys.platform:
    UPPER = 139
