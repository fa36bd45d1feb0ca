"""Where results are printed."""

from __future__ import annotations

import os
from typing import TextIO

from rich.console import Console

WIDTH_OF_FILES = 200


def printer(file: TextIO | None = None) -> Console:
    """As wide as the terminal. A file or a pipe is not 80 characters wide: there a row stays on its line."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_OF_FILES
    return console
