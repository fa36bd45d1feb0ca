"""How well scores put the rows of one class before those of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Ranking:
    """Rows in the order of their scores; rows with equal scores stand together.

    Args:
        scores: Shape (rows,), of the positive class.
        positive: Shape (rows,), which rows are of it.
    """

    def __init__(self, scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> None:
        self.order = np.argsort(scores, kind="stable")
        ordered = scores[self.order]
        self.begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        self.scores = ordered[self.begins]
        self._positive = positive[self.order].astype(np.float64)

    def counts(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights of positive and of negative rows at each score, rising. Shape (…, rows) → (…, scores)."""
        ordered = weights[..., self.order]
        positive = np.add.reduceat(ordered * self._positive, self.begins, axis=-1)
        return positive, np.add.reduceat(ordered, self.begins, axis=-1) - positive

    def roc_auc(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Chance that a positive row scores above a negative one; ties are half. Shape (…, rows) → (…).

        NaN where one class has no weight.
        """
        positive, negative = self.counts(weights)
        below = np.cumsum(negative, axis=-1) - negative / 2
        pairs = positive.sum(-1) * negative.sum(-1)
        with np.errstate(invalid="ignore"):
            return np.asarray((positive * below).sum(-1) / pairs)

    def average_precision(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Precision at each score, weighted by the recall that it adds. Shape (…, rows) → (…).

        NaN where the positive class has no weight.
        """
        found, precision, _ = self._falling(weights)
        with np.errstate(invalid="ignore"):
            return np.asarray((found * precision).sum(-1) / found.sum(-1))

    def curves(self) -> dict[str, NDArray[np.float64]]:
        """Points for pictures: false_positive_rate, recall and precision as the threshold falls."""
        found, precision, missed = self._falling(np.ones(len(self.order)))
        return {
            "false_positive_rate": np.append(0, np.cumsum(missed) / missed.sum()),
            "recall": np.append(0, np.cumsum(found) / found.sum()),
            "precision": np.append(1, precision),
        }

    def _falling(
        self, weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Positive rows, precision and negative rows as the threshold falls from score to score."""
        positive, negative = (counted[..., ::-1] for counted in self.counts(weights))
        hits = np.cumsum(positive, axis=-1)
        return positive, hits / np.maximum(hits + np.cumsum(negative, axis=-1), 1e-300), negative
