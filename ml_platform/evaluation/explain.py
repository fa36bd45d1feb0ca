"""What a model leans on, and where it is most wrong: in the raw columns that people know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.evaluation.measure import ROW_KEY, LossScorer, keyed, read_rows
from ml_platform.evaluation.metrics import LOSS_COLUMNS, primary_metric
from ml_platform.inference.raw_model import read_manifest, read_state
from ml_platform.inference.score import numbered
from ml_platform.inference.worker_models import ship
from ml_platform.resources.spark_daemon import forked_with
from ml_platform.specs.references import Dataset, Evaluation, Model
from ml_platform.store.spark_failures import spark_failures

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

SAMPLE_ROWS, FEWEST_ROWS = 2_000, 200
CELLS = 400_000_000
"""Rows times the square of the columns: what one pass over all permuted columns may cost."""

MANY_COLUMNS, REPEATS = 100, 3
WORST_ROWS = 50


def permutation_importance(
    spark: SparkSession, model_folder: Path, part: Dataset, *, seed: int = 7
) -> dict[str, float]:
    """By how much the model's loss rises when one raw column is dealt anew among rows, by column.

    At most 2,000 rows, chosen by their hash; fewer of a table with very many columns. Each column is dealt
    three times, once where there are more than 100. Columns that tell the same share what they matter.

    Returns:
        Rise of the mean log loss, or of the root mean squared error; the highest first. About 0, or below it:
        the model does without the column.
    Source: Breiman 2001, Random Forests, section 10.
    """
    from pyspark.sql import functions as F  # noqa: N812

    from ml_platform.store.datasets import spark_frame

    contract, state = read_manifest(model_folder).contract, read_state(model_folder)
    columns = contract.names
    rows = min(SAMPLE_ROWS, max(FEWEST_ROWS, CELLS // len(columns) ** 2))
    needed = tuple(dict.fromkeys([ROW_KEY, state.label, *columns]))
    shipped = ship(spark, model_folder)
    scorer = _Permuted(
        LossScorer(shipped, needed),
        columns,
        LOSS_COLUMNS[primary_metric(state.problem)],
        REPEATS if len(columns) <= MANY_COLUMNS else 1,
        seed,
    )
    sample = keyed(spark_frame(spark, part)).orderBy(F.col(ROW_KEY)).limit(rows).coalesce(1)
    with forked_with(shipped.imports):
        permuted = numbered(sample, needed).mapInArrow(scorer, "name string, loss double")
    with spark_failures("the importance of columns was not measured"):
        found = permuted.toArrow()
    losses = dict(zip(found.column("name").to_pylist(), found.column("loss").to_pylist(), strict=True))
    power = 0.5 if state.problem == "regression" else 1.0
    base = losses.pop("") ** power
    rises = {name: loss**power - base for name, loss in losses.items()}
    return dict(sorted(rises.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class _Permuted:
    """What runs on an executor: all rows of the sample in, a mean loss per column out; of '' as it is."""

    scorer: LossScorer
    columns: tuple[str, ...]
    loss: str
    repeats: int
    seed: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        names = list(self.scorer.names)
        whole = pa.Table.from_batches(list(batches)).rename_columns(names).combine_chunks()
        if not whole.num_rows:
            return
        sample = whole.to_batches()[0]
        losses = {"": self._loss(sample), **{name: self._dealt_anew(sample, name) for name in self.columns}}
        yield pa.RecordBatch.from_pydict(
            {"name": list(losses), "loss": pa.array(losses.values(), pa.float64())}
        )

    def _dealt_anew(self, sample: pa.RecordBatch, name: str) -> float:
        import numpy as np
        import pyarrow as pa

        at = sample.schema.get_field_index(name)
        total = 0.0
        for repeat in range(self.repeats):
            rng = np.random.default_rng([self.seed, self.columns.index(name), repeat])
            order = pa.array(rng.permutation(sample.num_rows))
            total += self._loss(sample.set_column(at, sample.schema.field(at), sample.column(at).take(order)))
        return total / self.repeats

    def _loss(self, sample: pa.RecordBatch) -> float:
        scored = self.scorer.score(self.scorer.model.open(), sample)
        return float(scored.column(self.loss).to_numpy().mean())


def worst_rows(spark: SparkSession, model: Model, evaluation: Evaluation, part: Dataset) -> pa.Table:
    """The 50 rows with the greatest losses: the loss, the prediction, and the raw row.

    Returns:
        `loss`, `predicted` (a class name, or a number; null where there is no prediction), then the columns
        of the part, the label first. The greatest loss at the top.
    """
    import pyarrow as pa

    loss = LOSS_COLUMNS[primary_metric(model.problem)]
    lines = read_rows(evaluation)
    worst = lines.sort_by([(loss, "descending"), ("row_key", "ascending")]).slice(0, WORST_ROWS)
    label = part.contract.label
    order = sorted(part.contract.names, key=lambda name: name != label)
    there = measured_rows(spark, part, worst.column("row_key").to_pylist(), order)
    names = [_free(name, there.column_names) for name in ("loss", "predicted")]
    added = [worst.column(loss), _predicted(worst, model.classes)]
    return pa.table([*added, *there.columns], names=[*names, *there.column_names])


def measured_rows(spark: SparkSession, part: Dataset, keys: list[str], columns: Sequence[str]) -> pa.Table:
    """The raw rows that measuring gave these keys, in the order of the keys.

    Rows that are equal have the same key, and are there as often as they were measured.
    """
    import pyarrow as pa
    from pyspark.sql import functions as F  # noqa: N812

    from ml_platform.store.datasets import spark_frame

    with spark_failures("the measured rows were not read"):
        wanted = keyed(spark_frame(spark, part)).where(F.col(ROW_KEY).isin(keys))
        raw = numbered(wanted, [ROW_KEY, *columns]).toArrow().rename_columns([ROW_KEY, *columns])
    place = {key: at for at, key in enumerate(raw.column(ROW_KEY).to_pylist())}
    return raw.select(list(columns)).take(pa.array([place[key] for key in keys], pa.int64()))


def _predicted(worst: pa.Table, classes: tuple[str, ...]) -> pa.Array | pa.ChunkedArray:
    import pyarrow as pa

    if not classes:
        return worst.column("predicted")
    return pa.array([classes[at] if at >= 0 else None for at in worst.column("predicted").to_pylist()])


def _free(name: str, taken: list[str]) -> str:
    return name if name not in taken else _free(f"_{name}", taken)
