"""`python -m tests.engine.mutations`: the table."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.engine.mutations.code_edits import CODE_EDITS
from tests.engine.mutations.report import outcomes, table

with tempfile.TemporaryDirectory(prefix="ml-platform-mutations-") as folder:
    print(table(outcomes(CODE_EDITS, Path(folder))))
