"""What the threshold p = 0.5 gives: accuracy, F1, Brier score."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sae_transfer.core.arrays import Floats


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of rows on the right side of p = 0.5."""
    return float(np.mean(_right(probabilities, labels)))


def weighted_accuracy(probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike) -> Floats:
    """`accuracy` under each of R weightings [R, n] of the rows."""
    weights = np.asarray(weights, dtype=np.float64)
    shares: Floats = weights @ _right(probabilities, labels) / weights.sum(axis=1)
    return shares


def threshold_metrics(probabilities: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """What the threshold p = 0.5 gives: balanced accuracy, F1 of the unanswerable class, and the Brier score."""
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    answerable = labels == 1
    right = _right(probabilities, labels)
    recalls = [float(right[part].mean()) if part.any() else np.nan for part in (answerable, ~answerable)]
    alarms, caught = int((probabilities < 0.5).sum()), int(right[~answerable].sum())
    f1 = 2 * caught / (alarms + int((~answerable).sum())) if alarms + (~answerable).sum() else np.nan
    return {
        "balanced_accuracy": float(np.mean(recalls)),
        "f1": float(f1),
        "brier": float(np.mean((probabilities - labels) ** 2)),
    }


def _right(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = (np.asarray(probabilities) >= 0.5) == (np.asarray(labels) == 1)
    return result
