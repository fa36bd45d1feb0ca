"""Specs of the model side: networks, trees, the gate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ml_platform.specs.base import Spec

ClassWeight = Literal["none", "balanced"]
CLASS_WEIGHT = "balanced: every class counts alike, however few rows it has; probabilities lean to rare ones."


class KerasSpec(Spec):
    """A dense Keras network, trained by Horovod ranks."""

    hidden: tuple[int, ...] = Field((128, 64), description="Units of each hidden layer.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of units left out per step.")
    epochs: int = Field(30, ge=1, le=10_000, description="Passes over the training part.")
    batch_rows: int = Field(
        64, ge=1, description="Rows per step over all ranks; more ranks do not change the mathematics."
    )
    rate: float = Field(2e-3, gt=0, description="Learning rate of Adam.")
    patience: int = Field(6, ge=1, description="Epochs without a better validation loss before it stops.")
    shuffle: bool = Field(True, description="Deal the rows anew each epoch, by the seed.")
    class_weight: ClassWeight = Field("none", description=CLASS_WEIGHT)
    seed: int = Field(7, ge=0, description="Seed of weights, dropout and shuffling.")
    ranks: int | None = Field(
        None,
        ge=1,
        description="Ranks that train together. Empty: as the placement says, one without Horovod.",
    )


class AugmentSpec(Spec):
    """How training images are varied, anew each time they are seen; only while a network trains."""

    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        "none", description="Mirror half of the images. A mirrored digit is another sign: none."
    )
    rotation: float = Field(0.04, ge=0, le=0.5, description="Largest angle, as a share of a full turn.")
    zoom: float = Field(0.1, ge=0, lt=1, description="Largest change of size, as a share of the image.")
    translation: float = Field(0.1, ge=0, lt=1, description="Largest shift, as a share of the image.")


class FineTuneSpec(Spec):
    """A network that learns from the images themselves, on Horovod ranks.

    With a backbone first a head on top of it, and then its last layers too, at a smaller rate. Where the
    backbone is the pixels, a small convolutional network from scratch.
    """

    augment: AugmentSpec = Field(AugmentSpec(), description="How training images are varied.")
    filters: tuple[int, ...] = Field(
        (16, 32), min_length=1, description="Of each convolution of the network from scratch."
    )
    unfrozen: int = Field(
        8, ge=0, description="Layers with weights, from the end of a backbone, that learn. 0: the head alone."
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of units before the head left out per step.")
    head_epochs: int = Field(5, ge=1, le=10_000, description="Passes in which the head of a backbone learns.")
    epochs: int = Field(20, ge=1, le=10_000, description="Passes in which the whole learns, at most.")
    batch_rows: int = Field(
        32, ge=1, description="Images per step over all ranks; more ranks do not change the mathematics."
    )
    rate: float = Field(2e-3, gt=0, description="Learning rate of a head, or of a network from scratch.")
    fine_rate: float = Field(1e-4, gt=0, description="Learning rate once layers of the backbone learn too.")
    patience: int = Field(6, ge=1, description="Epochs without a better validation loss before it stops.")
    class_weight: ClassWeight = Field("none", description=CLASS_WEIGHT)
    seed: int = Field(7, ge=0, description="Seed of weights, augmentation, dropout and shuffling.")
    ranks: int | None = Field(
        None,
        ge=1,
        description="Ranks that train together. Empty: as the placement says, one without Horovod.",
    )


class XGBoostSpec(Spec):
    """Boosted trees, trained on Spark executors."""

    trees: int = Field(200, ge=1, le=100_000, description="Boosting rounds at most.")
    depth: int = Field(5, ge=1, le=16, description="Levels of a tree at most.")
    rate: float = Field(0.15, gt=0, le=1, description="Share of each tree that is added.")
    subsample: float = Field(0.9, gt=0, le=1, description="Share of rows that each tree sees.")
    patience: int = Field(20, ge=1, description="Rounds without a better validation loss before it stops.")
    class_weight: ClassWeight = Field("none", description=CLASS_WEIGHT)
    seed: int = Field(7, ge=0, description="Seed of the row samples.")
    workers: int = Field(1, ge=1, description="Spark tasks that train together.")
    device: Literal["cpu", "cuda"] = Field("cpu", description="cuda: each worker trains on a GPU of its own.")


EstimatorName = Literal["linear", "forest", "boosting"]
"""linear: logistic regression, or ridge regression of a number."""


class SklearnSpec(Spec):
    """A model of scikit-learn, trained in one process: the training part must fit into its memory."""

    estimator: EstimatorName = Field(
        "forest", description="linear (logistic or ridge regression), forest, or boosting by histograms."
    )
    l2: float = Field(1.0, gt=0, description="Penalty on large coefficients, or leaves. Not of a forest.")
    trees: int = Field(200, ge=1, le=10_000, description="Trees of a forest, or rounds of boosting at most.")
    depth: int | None = Field(None, ge=1, le=64, description="Levels of a tree at most. Empty: no limit.")
    leaf_rows: int = Field(5, ge=1, description="Rows that each leaf of a tree has at least.")
    rate: float = Field(0.1, gt=0, le=1, description="Share of each tree that boosting adds.")
    patience: int = Field(
        10, ge=1, description="Rounds of boosting without a better validation loss before it stops."
    )
    class_weight: ClassWeight = Field("none", description=CLASS_WEIGHT)
    seed: int = Field(7, ge=0, description="Seed of row and column samples.")
    threads: int = Field(1, ge=1, description="Threads that train. The run's budget does not count them.")


class MLlibSpec(Spec):
    """A Pipeline of Spark's MLlib, trained on executors: for tables that fit no single machine."""

    estimator: EstimatorName = Field(
        "linear",
        description="linear (logistic or ridge regression), forest, or boosting: of two classes or numbers.",
    )
    components: int | None = Field(
        None, ge=1, description="Principal components that stand for the features. Empty: all features."
    )
    l2: float = Field(1.0, ge=0, description="Penalty on large coefficients of a linear model.")
    steps: int = Field(200, ge=1, le=10_000, description="Steps of the solver of a linear model at most.")
    trees: int = Field(50, ge=1, le=10_000, description="Trees of a forest, or rounds of boosting at most.")
    depth: int = Field(6, ge=1, le=30, description="Levels of a tree at most.")
    leaf_rows: int = Field(5, ge=1, description="Rows that each leaf of a tree has at least.")
    rate: float = Field(0.1, gt=0, le=1, description="Share of each tree that boosting adds.")
    class_weight: ClassWeight = Field("none", description=CLASS_WEIGHT)
    seed: int = Field(7, ge=0, description="Seed of row and column samples.")
    partitions: int = Field(
        2,
        ge=1,
        description="Spark tasks that the rows are dealt to. Beyond 2, sums may differ in last digits.",
    )


class GateSpec(Spec):
    """When a challenger replaces the champion."""

    metric: Literal["log_loss", "brier", "rmse", "mae"] | None = Field(
        None, description="What is compared, row by row. Empty: log_loss for classes, rmse for numbers."
    )
    margin: float = Field(
        0.0, ge=0, description="By how much the metric must be better at least, in its own unit."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of the paired interval.")
    resamples: int = Field(2_000, ge=200, le=100_000, description="Bootstrap resamples.")
    minimum_rows: int = Field(
        30, ge=2, description="Fewer rows in the holdout, or of one class in it: cannot tell."
    )
    floors: dict[str, float] = Field(
        {}, description="Worst value that a metric may have, on the whole and in every slice: accuracy 0.8."
    )
    seed: int = Field(7, ge=0, description="Seed of the resamples.")
