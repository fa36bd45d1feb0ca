"""Rank functions: what each rank runs, on a laptop, on a cluster, or in-process. They import no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ml_platform.errors import DivergedError
from ml_platform.specs.problems import ProblemKind
from ml_platform.specs.references import Dataset
from ml_platform.specs.training import FineTuneSpec, KerasSpec
from ml_platform.training.image_network import ImageNetwork, build_image_network, unfreeze
from ml_platform.training.network import LOSSES, METRICS, build_network
from ml_platform.worker.rank import Fitted, Rank


def fit_keras(
    rank: Rank,
    train: Dataset,
    validation: Dataset,
    spec: KerasSpec,
    outputs: int,
    problem: ProblemKind = "multiclass",
    class_weight: Mapping[int, float] | None = None,
    stop: Callable[[Sequence[float]], bool] | None = None,
) -> Fitted:
    """A dense network with that many outputs, stopped early on the validation part.

    Args:
        class_weight: What a row of each class counts in training. None: all count alike.
        stop: Given the validation losses up to now, whether to end. Asked after each epoch.
    """
    import keras

    from ml_platform.worker.stop_callback import StopByRule

    width = train.contract["features"].width or 1
    model = build_network(width, outputs, spec, problem)
    model.compile(keras.optimizers.Adam(spec.rate), loss=LOSSES[problem], metrics=list(METRICS[problem]))
    history = rank.fit(
        model,
        train,
        validation=validation,
        batch_rows=spec.batch_rows,
        epochs=spec.epochs,
        seed=spec.seed,
        shuffle=spec.shuffle,
        patience=spec.patience,
        callbacks=[] if stop is None else [StopByRule(stop)],
        class_weight=class_weight,
        checkpoint_every_epochs=1,
    )
    return rank.fitted(model, history)


def try_keras(
    rank: Rank,
    train: Dataset,
    validation: Dataset,
    spec: KerasSpec,
    outputs: int,
    problem: ProblemKind,
    class_weight: Mapping[int, float] | None,
    stop: Callable[[Sequence[float]], bool] | None,
) -> dict[str, list[float]] | DivergedError:
    """Values per epoch of `fit_keras`. A loss that is no number is an answer: the ranks stay as they are."""
    try:
        fitted = fit_keras(rank, train, validation, spec, outputs, problem, class_weight, stop)
    except DivergedError as error:
        return error
    return fitted.history


def fit_images(
    rank: Rank,
    train: Dataset,
    validation: Dataset,
    spec: FineTuneSpec,
    network: ImageNetwork,
    class_weight: Mapping[int, float] | None = None,
) -> Fitted:
    """A network from pixels to classes: a head first, where there is a backbone, and then the rest.

    Args:
        train: Columns `label` and `features`: the pixels, packed, from 0 to 1.
        class_weight: What a row of each class counts in training. None: all count alike.
    """
    model = build_image_network(network, spec)
    phases = [(spec.rate, spec.epochs)]
    if network.backbone is not None:
        phases = [(spec.rate, spec.head_epochs), *([(spec.fine_rate, spec.epochs)] if spec.unfrozen else [])]
    curves: dict[str, list[float]] = {}
    for number, (rate, epochs) in enumerate(phases):
        if number:
            unfreeze(model, spec.unfrozen)
        compile_images(model, rate)
        history = rank.fit(
            model,
            train,
            validation=validation,
            batch_rows=spec.batch_rows,
            epochs=epochs,
            seed=spec.seed + number,
            patience=spec.patience,
            class_weight=class_weight,
            checkpoint_every_epochs=1,
        )
        for name, values in history.metrics.items():
            curves.setdefault(name, []).extend(values)
    return rank.fitted(model, replace(history, metrics=curves))


def try_images(
    rank: Rank,
    train: Dataset,
    validation: Dataset,
    spec: FineTuneSpec,
    network: ImageNetwork,
    class_weight: Mapping[int, float] | None,
) -> dict[str, list[float]] | DivergedError:
    """Values per epoch of `fit_images`; as `try_keras`."""
    try:
        return fit_images(rank, train, validation, spec, network, class_weight).history
    except DivergedError as error:
        return error


def compile_images(model: Any, rate: float) -> None:
    """Anew for each phase: which weights learn is fixed when a model is compiled."""
    import keras

    optimizer = keras.optimizers.Adam(rate)
    model.compile(optimizer, loss=LOSSES["multiclass"], metrics=list(METRICS["multiclass"]))
