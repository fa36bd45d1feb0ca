"""What makes `model.fit` on many ranks one fit. Imported in ranks alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DesyncError, SpecError
from ml_platform.worker.callbacks import admitted
from ml_platform.worker.collective import Collective, gather_json
from ml_platform.worker.columns import Rows
from ml_platform.worker.feed import Feed
from ml_platform.worker.fitted import History
from ml_platform.worker.lanes import Batching, plan_batches
from ml_platform.worker.optimizer import distributed
from ml_platform.worker.pipeline import steps_of
from ml_platform.worker.proof import prove, variables_of
from ml_platform.worker.recovery import Progress
from ml_platform.worker.watch import Accord, Watch, recorded, warming_rates

if TYPE_CHECKING:
    from ml_platform.worker.fit_spec import FitSpec
    from ml_platform.worker.rank import Rank


def train_model(
    rank: Rank,
    model: Any,
    train: Feed,
    validation: Feed | None,
    spec: FitSpec,
    callbacks: Any = (),
    *,
    reduce: bool = True,
) -> History:
    """`rank.fit`, on feeds. `reduce=False` trains each rank for itself: see `optimizer.distributed`."""
    start = time.monotonic()
    batching = _batching(train, spec, rank.world_size)
    own = admitted(callbacks, rank=rank.rank)
    with distributed(model, rank.collective, reduce=reduce):
        begin_alike(model, rank.collective, width=train.width)
        rates = warming_rates(model, spec, rank.world_size)
        progress = Progress(rank, model, train, spec)
        progress.find()
        watch = Watch(rank, model, validation, spec, batching, own, rates)
        accord = Accord(rank, model, spec, watch, own, progress)
        with recorded(model, watch, record=spec.record_steps):
            _fit(rank, model, train, spec, batching, progress, watch, [*own, accord])
        watch.restore_best()
    proof = prove(model, rank.collective)
    return watch.history(accord.lookout, proof=asdict(proof), seconds=time.monotonic() - start)


def begin_alike(model: Any, collective: Collective, *, width: int) -> None:
    """Build the model and its optimizer, and give all ranks rank 0's weights and optimizer variables.

    Raises:
        DesyncError: Ranks built different models.
    """
    if not model.built:
        import keras

        model(keras.Input((width,)))  # `build` alone leaves the layers of a subclass without weights
    model.optimizer.build(model.trainable_variables)
    variables = variables_of(model)
    shapes: list[list[Any]] = gather_json(
        collective, [[v.path, list(v.shape), str(v.dtype)] for v in variables]
    )
    for rank, other in enumerate(shapes):
        if [entry[1:] for entry in other] != [entry[1:] for entry in shapes[0]]:
            raise _different_models(shapes[0], other, rank)
    for variable in variables:
        variable.assign(collective.broadcast(variable.numpy()))


def _batching(train: Feed, spec: FitSpec, world_size: int) -> Batching:
    batching = plan_batches(train.rows, batch_rows=spec.batch_rows, world_size=world_size)
    if spec.steps_per_epoch is None:
        return batching
    if spec.steps_per_epoch > batching.steps:
        raise SpecError(
            "an epoch has fewer steps than that",
            wanted=f"up to {batching.steps}: {train.rows} rows in batches of {spec.batch_rows}",
            got=f"steps_per_epoch={spec.steps_per_epoch}",
        )
    return replace(batching, steps=spec.steps_per_epoch)


def _fit(
    rank: Rank,
    model: Any,
    train: Feed,
    spec: FitSpec,
    batching: Batching,
    progress: Progress,
    watch: Watch,
    callbacks: Sequence[Any],
) -> None:
    def epoch() -> Iterator[Rows]:
        seed, number = spec.seed, watch.epoch
        chunks = train.chunks(batching, rank=rank.rank, seed=seed, epoch=number, shuffle=spec.shuffle)
        return watch.clock.feed.over(chunks)

    # An iterator for each epoch: steps_per_execution may take too many from one that goes on.
    with steps_of(train, epoch, batching) as data:
        model.fit(
            data,
            epochs=progress.epoch if progress.is_over else spec.epochs,
            initial_epoch=progress.epoch,
            callbacks=[watch, *callbacks],
            class_weight=None if spec.class_weight is None else dict(spec.class_weight),
            shuffle=False,  # the feed did it
            verbose=spec.verbose if rank.rank == 0 else 0,
        )


def _different_models(first: list[Any], other: list[Any], rank: int) -> DesyncError:
    pairs = itertools.zip_longest(first, other, fillvalue="no further variable")
    wanted, got = next(pair for pair in pairs if pair[0][1:] != pair[1][1:])
    return DesyncError(
        f"rank {rank} built another model than rank 0",
        wanted=wanted,
        got=got,
        hint="build the model from the arguments alone, alike on every rank",
    )
