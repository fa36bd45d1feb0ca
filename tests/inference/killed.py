"""A scoring on Spark that never gets done: python -m tests.inference.killed MODEL SOURCE DESTINATION PIPE."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ml_platform.data.sources import open_source, plain_files
from ml_platform.inference.parts import RowsPart, file_parts
from ml_platform.inference.raw_model import read_manifest
from ml_platform.inference.score import score_table
from ml_platform.resources.spark import open_session
from ml_platform.specs.placements import SparkPlacement
from ml_platform.specs.references import Predictions, Version
from tests.inference.builders import reference


@dataclass(frozen=True)
class Endless:
    """A part that is not read to its end. Whoever reads it says so by a pipe, and holds that open."""

    part: RowsPart
    pipe: str

    @property
    def identity(self) -> str:
        return self.part.identity

    def read(self, schema: pa.Schema) -> tuple[str, Iterator[pa.RecordBatch]]:
        os.write(os.open(self.pipe, os.O_WRONLY), b"x")
        signal.pause()
        raise AssertionError


def score(spark: object, model: Path, source: str, destination: str, pipe: str | None = None) -> Predictions:
    """The digits in parts of a file each; the last one endless where there is a pipe."""
    contract = read_manifest(model).contract
    classes = tuple(str(digit) for digit in range(10))
    version = Version(name="digits", version=1, model=reference(model, contract, classes))
    parts: list[RowsPart] = [*file_parts(plain_files(source, contract))]
    if pipe is not None:
        parts[-1] = Endless(parts[-1], pipe)
    frame = open_source(source).frame(spark)
    return score_table(spark, model, version, frame, keys=("row",), destination=destination, parts=parts)


if __name__ == "__main__":
    with open_session(SparkPlacement(master="local[2]", driver_memory_mib=1024)) as session:
        score(session, Path(sys.argv[1]), *sys.argv[2:])
