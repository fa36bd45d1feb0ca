"""What training hands back. Plain values: the driver opens them without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class History:
    """What `rank.fit` did. Equal on every rank, but for times.

    Attributes:
        metrics: Values per epoch over the rows of all ranks: loss, accuracy, val_loss, val_accuracy, …; with
            `record_steps` also `step_loss`, the global loss of every step.
        epochs: Epochs that ran.
        best_epoch: The epoch (from 1) whose weights the model has.
        steps: Optimizer steps per epoch, the same on every rank.
        rows_dropped_per_epoch: Rows that did not fill a global batch.
        rows_per_second: Of each epoch, over all ranks, validation not counted.
        seconds: All of it.
        checks: How often ranks compared their bytes on the way.
        check_seconds: What that took, waiting for other ranks included.
        proof: digest, ranks and variables of the proof of equal bytes.
        phases: By rank, seconds of compute, allreduce and validation, and of the feed beside them.
    """

    metrics: dict[str, list[float]]
    epochs: int
    best_epoch: int
    steps: int
    rows_dropped_per_epoch: int
    rows_per_second: list[float]
    seconds: float
    checks: int
    check_seconds: float
    proof: dict[str, str | int]
    phases: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Fitted:
    """A trained model on its way to the driver.

    Attributes:
        model: A `.keras` archive with a plain optimizer: it opens without Horovod. Empty but on rank 0.
        history: Values per epoch.
    Others: as in `History`.
    """

    model: bytes = field(repr=False)
    history: dict[str, list[float]]
    proof: dict[str, str | int]
    epochs: int
    best_epoch: int
    steps: int
    rows_dropped_per_epoch: int
    rows_per_second: list[float]
    seconds: float
    phases: list[dict[str, float]] = field(default_factory=list)
