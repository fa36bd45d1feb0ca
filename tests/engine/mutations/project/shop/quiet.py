"""Does nothing that a key must know, beyond binding names."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)
logging.getLogger("parcels").setLevel(logging.INFO)
TABLE: dict[str, int] = {}
TABLE["unused"] = 1
FIRST, UNUSED = 1, 2
