"""What a table's columns are found to be, without loading it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ml_platform.data.load import survey, usable
from ml_platform.data.profile import TableSurveyor
from ml_platform.data.sources import check_source, read_source
from ml_platform.errors import DataError
from ml_platform.specs.profiles import Profile
from ml_platform.specs.sources import ReadingSpec
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession


def infer_profile(
    spark: SparkSession, source: str, label: str | None = None, reading: ReadingSpec = ReadingSpec()
) -> Profile:
    """The profile that the table would have when it is loaded. Bad rows do not count.

    Raises:
        DataError: The source is missing, empty or corrupt.
        SpecError: There is no column `label`, or `source` names what does not exist.
    """
    from ml_platform.store.fingerprint import mapped, named

    check_source(source, label, None, reading)
    read, reason = read_source(spark, source, label, None, reading)
    frame, _ = usable(read, reason, source, label)
    surveyor = survey(frame, reason, label, None)
    good = frame.where(named(reason).isNull()).drop(reason)
    with spark_failures(f"{source} cannot be read"):
        states = mapped(good, _Sketcher(surveyor), "state binary").collect()
    surveyor.kinds([row.state for row in states])
    if surveyor.profile.rows == 0:
        raise DataError(f"{source} is empty", wanted="rows", got="0 good rows")
    return surveyor.profile


class _Sketcher:
    """What each Spark task runs."""

    def __init__(self, surveyor: TableSurveyor) -> None:
        self._surveyor = surveyor

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        sketch = self._surveyor.sketch()
        for batch in batches:
            sketch.add(batch)
        if sketch.rows:
            yield pa.RecordBatch.from_arrays([pa.array([sketch.state()], pa.binary())], ["state"])
