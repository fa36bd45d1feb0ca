"""Failures of Spark jobs as our own errors: what a worker raised arrives as itself, with its message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ml_platform import errors
from ml_platform.errors import DataError, PlatformError, StoreError

RAISED = re.compile(r"^ml_platform\.errors\.(\w+): (.*(?:\n(?:  |\t).*)*)", re.MULTILINE)
FIELDS = {"wanted": "wanted", "got": "got", "try": "hint"}
UNREADABLE = re.compile(
    r"FAILED_READ_FILE|MALFORMED_(?:CSV_)?RECORD|CANNOT_READ_FILE_FOOTER|PARQUET_TYPE_ILLEGAL"
)
NOISE = re.compile(r"\s+at |\s*\.\.\. \d+ more|An error occurred while calling|Parse Mode: ")
KIND = re.compile(r"^(?:: |Caused by: )?(?:[\w$]+\.)+[\w$]+(?:Exception|Error): |\s+SQLSTATE: \w+$")
EVIDENCE_LINES = 6


@contextmanager
def spark_failures(what: str) -> Iterator[None]:
    """Translate what a Spark job inside raises.

    Args:
        what: What was being done, for the error's first line.
    Raises:
        PlatformError: A worker raised one: it comes back with its kind and message.
        DataError: Spark could not read a file, or a record in it.
        StoreError: The job failed for another reason.
    """
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise _translated(what, str(error)) from error


def raised_by_worker(text: str) -> PlatformError | None:
    """An error of ours that a worker raised, out of what Spark says of it."""
    raised = RAISED.search(text)
    return _rebuilt(raised.group(1), raised.group(2).splitlines()) if raised is not None else None


def _translated(what: str, text: str) -> PlatformError:
    raised = raised_by_worker(text)
    if raised is not None:
        return raised
    kind = DataError if UNREADABLE.search(text) else StoreError
    return kind(what, evidence=causes(text))


def _rebuilt(name: str, lines: list[str]) -> PlatformError:
    kind = getattr(errors, name, DataError)
    fields: dict[str, str] = {}
    for line in lines[1:]:
        key, _, value = line.strip().partition(": ")
        if key in FIELDS:
            fields[FIELDS[key]] = value
    rebuilt: PlatformError = kind(lines[0], **fields)
    return rebuilt


def causes(text: str) -> str:
    """The lines of a Spark error that say why, innermost last, without stack frames."""
    said = (line.strip() for line in text.splitlines() if not NOISE.match(line))
    lines = (KIND.sub("", line) for line in said if line)
    return "\n".join(list(dict.fromkeys(lines))[-EVIDENCE_LINES:])
