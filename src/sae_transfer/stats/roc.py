"""The area under the ROC curve, under many weightings of the rows at once, and rates at a false-alarm budget.

Labels are 1 (answerable) and 0 (unanswerable); scores rise with answerability. A number that cannot be computed is NaN.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sae_transfer.core.arrays import Floats

FALSE_ALARM_ROWS = 5


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


def weighted_auc(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike, strata: ArrayLike | None = None) -> Floats:
    """The AUC under each of R weightings of the rows, such as bootstrap counts.

    With K the matrix of comparisons between answerable and unanswerable rows (1, 1/2 or 0), the AUC under weights w is
    w+ K w- over the product of the classes' weights: one matrix product for all resamples, exact for counts.

    Args:
        scores: [n].
        labels: [n], 0 or 1.
        weights: [R, n], not negative.
        strata: [n], any labels: with them only rows of the same stratum are compared.

    Returns:
        [R]; NaN where a weighting leaves only one class.
    """
    scores, weights = np.asarray(scores, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    positive = np.asarray(labels) == 1
    high, low = scores[positive][:, None], scores[~positive]
    comparisons = (high > low) + 0.5 * (high == low)
    above, below = weights[:, positive], weights[:, ~positive]
    if strata is None:
        total = above.sum(axis=1) * below.sum(axis=1)
    else:
        strata = np.asarray(strata)
        compared = (strata[positive][:, None] == strata[~positive]).astype(np.float64)
        comparisons, total = comparisons * compared, np.einsum("ij,ij->i", above @ compared, below)
    wins = np.einsum("ij,ij->i", above @ comparisons, below)
    areas: Floats = np.divide(wins, total, out=np.full(len(total), np.nan), where=total > 0)
    return areas


def too_few_answerable(labels: ArrayLike, false_alarms: float) -> str:
    """Why no detection rate at this rate of false alarms can be told of these rows; empty where it can.

    `FALSE_ALARM_ROWS` answerable rows must be allowed above the threshold. Of 100 rows, "at most 1%" is a threshold
    just below the second lowest: a true rate of about 2%, which reads 0.185 where 0.128 is true (AUC 0.8).
    """
    n, needed = int((np.asarray(labels) == 1).sum()), round(FALSE_ALARM_ROWS / false_alarms)
    return f"{n} answerable rows, fewer than {needed}" if n < needed else ""


def detection_rate(scores: ArrayLike, labels: ArrayLike, false_alarms: float) -> float:
    """Share of unanswerable rows caught when at most `false_alarms` of the answerable ones raise an alarm.

    An alarm is a score at or below a threshold; rows of equal score are alarmed together. NaN with one class. Ask
    `too_few_answerable` first.
    """
    labels = np.asarray(labels)
    order, starts = ties(scores)
    answerable = labels[order] == 1
    if answerable.all() or not answerable.any():
        return np.nan
    false = np.cumsum(np.add.reduceat(answerable.astype(float), starts)) / answerable.sum()
    true = np.cumsum(np.add.reduceat((~answerable).astype(float), starts)) / (~answerable).sum()
    return float(true[false <= false_alarms].max(initial=0.0))
