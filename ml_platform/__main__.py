"""`python -m ml_platform`."""

from __future__ import annotations

import sys

from ml_platform.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
