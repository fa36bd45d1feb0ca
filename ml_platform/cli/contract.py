"""`python -m ml_platform contract`: what a table's columns are, as a file to edit and give back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from ml_platform.errors import StoreError
from ml_platform.specs.sources import ReadingSpec

contract = cyclopts.App(name="contract", help="Say what the columns of a table are.")


@contract.command
def infer(
    source: str,
    /,
    *,
    label: str | None = None,
    reading: ReadingSpec = ReadingSpec(),
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
) -> int:
    """Write what the columns of a table are found to be, as a file for `--schema`.

    Parameters
    ----------
    source
        The table, as `--source` of a flow names it.
    label
        The column to predict, if one is: it is never taken for an identifier or a text.
    reading
        How the source is written, where its files do not say so themselves.
    output
        File to write. Without it the schema is printed.
    """
    from ml_platform.cli.services import services
    from ml_platform.data.infer import infer_profile
    from ml_platform.data.schema_file import schema_text
    from ml_platform.data.sources import check_source, source_columns
    from ml_platform.engine.secret_blocks import secrets_of_prefect
    from ml_platform.engine.server import asking
    from ml_platform.resources.placement import load_placement
    from ml_platform.resources.spark import open_session

    running = services()
    with asking(running.prefect_api_url if running else None), secrets_of_prefect():
        # Before Spark starts: a request with a fault is refused at once.
        check_source(source, label, None, reading)
        with open_session(load_placement().spark) as spark:
            profile = infer_profile(spark, source, label, reading)
            text = schema_text(source, profile, source_columns(source, reading))
    if output is None:
        print(text, end="")
        return 0
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{output} cannot be written", got=error.strerror or error) from error
    print(f"wrote {output}", file=sys.stderr)
    return 0
