"""Numbers about scores: AUC, its bootstrap over groups, and what a fixed threshold gives. Pure functions on arrays.

Labels are 1 (answerable) and 0 (unanswerable); scores rise with answerability. What cannot be computed is NaN.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

MIN_GROUPS = 10
LEVEL = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; `reason` says why a missing one is missing."""

    value: float
    low: float
    high: float
    reason: str = ""


class Ties(NamedTuple):
    """Scores in ascending order: `order` [n] sorts them, `starts` [t] is where each run of equal scores begins."""

    order: NDArray[np.intp]
    starts: NDArray[np.intp]


def ties(scores: ArrayLike) -> Ties:
    scores = np.asarray(scores, dtype=np.float64)
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    return Ties(order, np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]]))


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: P(an answerable row scores above an unanswerable one), ties counting one half.

    Args:
        scores: [n].
        labels: [n], 0 or 1.

    Returns:
        NaN where only one class is there.
    """
    order, starts = ties(scores)
    positive = (np.asarray(labels)[order] == 1).astype(np.float64)
    above, below = np.add.reduceat(positive, starts), np.add.reduceat(1 - positive, starts)
    total = above.sum() * below.sum()
    return float(above @ (np.cumsum(below) - below / 2) / total) if total else np.nan


def weighted_auc(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike) -> Floats:
    """The AUC under each of R weightings of the rows, such as bootstrap counts.

    With K the matrix of comparisons between answerable and unanswerable rows (1, 1/2 or 0), the AUC under weights w is
    w+ K w- over the product of the classes' weights: one matrix product for all resamples, exact for counts.

    Args:
        scores: [n].
        labels: [n], 0 or 1.
        weights: [R, n], not negative.

    Returns:
        [R]; NaN where a weighting leaves only one class.
    """
    scores, weights = np.asarray(scores, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    positive = np.asarray(labels) == 1
    high, low = scores[positive][:, None], scores[~positive]
    comparisons = (high > low) + 0.5 * (high == low)
    above, below = weights[:, positive], weights[:, ~positive]
    total = above.sum(axis=1) * below.sum(axis=1)
    wins = np.einsum("ij,ij->i", above @ comparisons, below)
    areas: Floats = np.divide(wins, total, out=np.full(len(total), np.nan), where=total > 0)
    return areas


def group_weights(groups: ArrayLike, resamples: int, rng: np.random.Generator) -> Floats:
    """How often each row is in each bootstrap resample when whole groups are drawn with replacement.

    Args:
        groups: [n], any labels.
        resamples: R.

    Returns:
        [R, n] counts.
    """
    names, of_row = np.unique(np.asarray(groups), return_inverse=True)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return counts[:, of_row].astype(np.float64)


def interval(value: float, resampled: ArrayLike, n_groups: int) -> Estimate:
    """The percentile interval of a bootstrap, or NaN bounds and the reason where there are too few groups.

    Args:
        value: the estimate on the rows themselves.
        resampled: [R], the estimate on each resample; NaN where a resample had one class.
        n_groups: how many groups were resampled.
    """
    if np.isnan(value):
        return Estimate(value, np.nan, np.nan, "one class")
    if n_groups < MIN_GROUPS:
        return Estimate(value, np.nan, np.nan, f"{n_groups} groups, fewer than {MIN_GROUPS}")
    low, high = np.nanquantile(np.asarray(resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def mean_interval(values: ArrayLike) -> Estimate:
    """The mean over independent repeats with Student's interval for it.

    Args:
        values: [r], one number a repeat.
    """
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, np.nan, np.nan, "one repeat")
    half = stdtrit(len(values) - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return Estimate(mean, float(mean - half), float(mean + half))


def bootstrap_p(resampled: ArrayLike) -> float:
    """Two-sided p-value of "the difference is zero" from its bootstrap: how often resamples fall on the other side.

    Method: Davison and Hinkley, Bootstrap Methods and their Application (1997), with one added to each count, so that
    R resamples tell nothing below 2 / (R + 1): 1,000 of them carry Holm's correction over 25 comparisons at 5%.

    Args:
        resampled: [R], a paired difference on each resample; NaN where a resample had one class.

    Returns:
        NaN where no resample has a value.
    """
    values = np.asarray(resampled, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan
    tail = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(values) + 1))


def holm(p_values: ArrayLike) -> Floats:
    """p-values corrected for their number: Holm's step-down method, which bounds the chance of any false alarm.

    Holds whatever the dependence among the comparisons. Source: Holm, Scand. J. Statist. 6 (1979) 65-70.

    Args:
        p_values: [m], one a comparison of the same family; NaN where there was none.

    Returns:
        [m], NaN where the p-value is; missing ones do not count as comparisons.
    """
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]  # NaN sorts last
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


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


def detection_rate(scores: ArrayLike, labels: ArrayLike, false_alarms: float) -> float:
    """Share of unanswerable rows caught when at most `false_alarms` of the answerable ones raise an alarm.

    An alarm is a score at or below a threshold; rows of equal score are alarmed together. NaN with one class.
    """
    labels = np.asarray(labels)
    order, starts = ties(scores)
    answerable = labels[order] == 1
    if answerable.all() or not answerable.any():
        return np.nan
    false = np.cumsum(np.add.reduceat(answerable.astype(float), starts)) / answerable.sum()
    true = np.cumsum(np.add.reduceat((~answerable).astype(float), starts)) / (~answerable).sum()
    return float(true[false <= false_alarms].max(initial=0.0))


def _right(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = (np.asarray(probabilities) >= 0.5) == (np.asarray(labels) == 1)
    return result
