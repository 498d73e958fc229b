"""Numbers about scores: AUC, intervals by a bootstrap over groups, what a threshold gives. Pure functions on arrays.

Labels are 1 (answerable) and 0 (unanswerable); scores rise with answerability. What cannot be computed is NaN.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

MIN_GROUPS = 10
LEVEL = 0.95
PRIOR_WEIGHT = 5

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


def effective_groups(labels: ArrayLike, groups: ArrayLike) -> float:
    """How many groups an AUC rests on: 4mn / (m + n) where m groups hold answerable rows and n unanswerable ones.

    That is all the groups where half of them hold either label, fewer where one label is rare, and never more than
    there are. 0 where only one class is there.
    """
    groups, answerable = np.asarray(groups), np.asarray(labels) == 1
    m, n = len(np.unique(groups[answerable])), len(np.unique(groups[~answerable]))
    return min(4 * m * n / (m + n), float(len(np.unique(groups)))) if m and n else 0.0


def interval(value: float, resampled: ArrayLike, n_groups: float) -> Estimate:
    """The 95% interval of a share between 0 and 1, such as an AUC or an accuracy, from its bootstrap by group.

    Wilson's score interval with Student's quantile and with the number of independent rows that would give the share
    its variance (the effective sample size of Korn and Graubard, Survey Methodology 24, 1998). A percentile
    interval is far too narrow near 0 and 1, and a point where the sample is separated perfectly. There the bootstrap
    knows nothing of the variance, so v(1 - v) / n_groups, that of independent groups, is mixed in with the weight of
    `PRIOR_WEIGHT` groups on the rarer side, where the sample itself has min(v, 1 - v) * n_groups of them; the
    larger of the bootstrap's variance and that mixture counts. A perfect AUC over 200 groups has a lower bound of 0.98.
    benchmarks/coverage.py simulates the coverage. For a difference see `difference_interval`.

    Args:
        value: the estimate on the rows themselves.
        resampled: [R], the estimate on each resample; NaN where a resample had one class.
        n_groups: how many groups were resampled (for an AUC `effective_groups`).

    Returns:
        NaN bounds and the reason where there are too few groups.

    Raises:
        ValueError: the value lies outside 0 to 1.
    """
    if np.isnan(value):
        return Estimate(value, np.nan, np.nan, "one class")
    if not -1e-9 <= value <= 1 + 1e-9:
        raise ValueError(f"{value} is no share; a difference has `difference_interval`")
    if n_groups < MIN_GROUPS:
        return Estimate(value, np.nan, np.nan, f"{int(n_groups)} groups, fewer than {MIN_GROUPS}")
    value = min(max(value, 0.0), 1.0)  # means of shares may round beyond
    centre = _inwards(value, n_groups)
    n = centre * (1 - centre) / _variance(value, resampled, n_groups)
    low, high = _wilson(value, n, _quantile(n_groups))
    return Estimate(value, low, high)


def _inwards(value: float, n_groups: float) -> float:
    """The share were there one more group, half of it right."""
    return (value * n_groups + 0.5) / (n_groups + 1)


def _variance(value: float, resampled: ArrayLike, n_groups: float) -> float:
    centre = _inwards(value, n_groups)
    independent = centre * (1 - centre) / n_groups
    own = float(np.nanvar(np.asarray(resampled), ddof=1)) * n_groups / (n_groups - 1)
    seen = min(centre, 1 - centre) * n_groups
    return max(own, (seen * own + PRIOR_WEIGHT * independent) / (seen + PRIOR_WEIGHT))


def _quantile(n_groups: float) -> float:
    return float(stdtrit(n_groups - 2, (1 + LEVEL) / 2))


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson, Journal of the American Statistical Association 22, 1927."""
    square = quantile**2 / n
    middle = (share + square / 2) / (1 + square)
    half = np.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return float(max(min(middle - half, share), 0.0)), float(min(max(middle + half, share), 1.0))


def difference_interval(
    one: float, other: float, resampled: ArrayLike, resampled_other: ArrayLike, n_groups: float
) -> Estimate:
    """The 95% interval of `one` - `other`, two shares measured on the same rows, from their paired bootstraps.

    Student's interval. The variance is v + v' - 2 r sqrt(v v') with the variances v and v' of `interval`, which do not
    vanish near 0 and 1, and the correlation r of the two bootstraps. Where one of them does not vary r is unknown and
    taken as 0, so two perfect AUCs have a difference of 0 with an interval around it.

    Args:
        one: what is left of the minus.
        other: what is right of it.
        resampled: [R], `one` on each resample.
        resampled_other: [R], `other` on the same resamples.
        n_groups: as for `interval`.

    Returns:
        NaN bounds and the reason where there are too few groups.
    """
    value = one - other
    for share, drawn in ((one, resampled), (other, resampled_other)):
        if reason := interval(share, drawn, n_groups).reason:
            return Estimate(value, np.nan, np.nan, reason)
    both = np.stack([np.asarray(resampled, dtype=np.float64), np.asarray(resampled_other, dtype=np.float64)])
    both = both[:, ~np.isnan(both).any(axis=0)]
    correlation = float(np.corrcoef(*both)[0, 1]) if both.std(axis=1).min() > 1e-12 else 0.0
    v, w = _variance(one, resampled, n_groups), _variance(other, resampled_other, n_groups)
    half = _quantile(n_groups) * float(np.sqrt(max(v + w - 2 * correlation * np.sqrt(v * w), 0.0)))
    return Estimate(value, max(value - half, -1.0), min(value + half, 1.0))


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


def difference_p(value: ArrayLike, low: ArrayLike, high: ArrayLike, n_groups: ArrayLike) -> Floats:
    """Two-sided p-values of "no difference" that belong to intervals of `difference_interval`.

    Student's test with the standard error that the interval's width tells. All arguments are [m] or numbers.

    Returns:
        [m], NaN where there is no interval; 1 where both are the same in every resample.
    """
    value, low, high, n = (np.asarray(each, dtype=np.float64) for each in (value, low, high, n_groups))
    error = (high - low) / 2 / stdtrit(n - 2, (1 + LEVEL) / 2)
    t = np.divide(np.abs(value), error, out=np.where(value == 0, 0.0, np.inf), where=error > 0)
    p: Floats = np.where(np.isnan(error), np.nan, 2 * stdtr(n - 2, -t))
    return p


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
