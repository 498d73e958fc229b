"""Intervals of shares and of their paired differences, by a bootstrap over groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from sae_transfer.core.arrays import Floats

MIN_GROUPS = 10


LEVEL = 0.95


PRIOR_WEIGHT = 5


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; `reason` says why a missing one is missing.

    A difference also has the standard error `se` and the degrees of freedom `df` that its interval is made of.
    """

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    reason: str = ""
    se: float = np.nan
    df: float = np.nan

    def columns(self, name: str) -> dict[str, float]:
        """The number and its bounds as columns of a table: `name`, `name_low`, `name_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def estimates(found: Mapping[str, Estimate]) -> dict[str, Any]:
    """The columns of several estimates, and as `reason` why some are missing."""
    numbers = {column: value for name, one in found.items() for column, value in one.columns(name).items()}
    return {**numbers, "reason": reasons({name: one.reason for name, one in found.items()})}


def reasons(why: Mapping[str, str]) -> str:
    """The text of the column `reason`, from a reason a column; an empty reason counts as none."""
    return "; ".join(f"{column}: {reason}" for column, reason in why.items() if reason)


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


def equal_groups(groups: ArrayLike) -> float:
    """How many groups of equal size would tell as much as these: (sum n)^2 / sum n^2 over their sizes n.

    As many as there are where all are equal; 6 of 100 where one group holds 40% of the rows. 0 without rows. Source:
    Kish, Survey Sampling, 1965, section 11.7 (there for weights).
    """
    sizes = np.unique(np.asarray(groups), return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def effective_groups(labels: ArrayLike, groups: ArrayLike) -> float:
    """How many groups an AUC rests on: 4mn / (m + n) where m groups hold answerable rows and n unanswerable ones.

    Groups are counted by `equal_groups`. That is all of them where they are equal and half of them hold either label,
    fewer where one label is rare or one group large. 0 where only one class is there.
    """
    groups, answerable = np.asarray(groups), np.asarray(labels) == 1
    m, n = equal_groups(groups[answerable]), equal_groups(groups[~answerable])
    return min(4 * m * n / (m + n), equal_groups(groups)) if m and n else 0.0


def groups_of_mean(of_tests: Sequence[float]) -> float:
    """How many groups a mean over test sets rests on: their sum, or the fewest if one has too few for an interval."""
    return sum(of_tests) if min(of_tests) >= MIN_GROUPS else min(of_tests)


def interval(value: float, resampled: ArrayLike, n_groups: float) -> Estimate:
    """The 95% interval of a share between 0 and 1, such as an AUC or an accuracy, from its bootstrap by group.

    Wilson's score interval with Student's quantile. Its n is the number of independent rows that would give the share
    its variance (the effective sample size of Korn and Graubard, Survey Methodology 24, 1998). A percentile interval
    is far too narrow near 0 and 1, and a point where the sample is separated perfectly. The bootstrap underestimates
    the variance there. So it is shrunk towards v(1 - v) / n_groups, that of independent groups, as if `PRIOR_WEIGHT`
    more groups had been seen on the rarer side, where the sample itself has min(v, 1 - v) * n_groups. The larger of
    this mixture and the bootstrap's own variance counts. A perfect AUC over 200 groups has a lower bound of 0.98.
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
        return Estimate(value, reason="one class")
    if not -1e-9 <= value <= 1 + 1e-9:
        raise ValueError(f"{value} is no share; a difference has `difference_interval`")
    if n_groups < MIN_GROUPS:
        return Estimate(value, reason=f"{int(n_groups)} groups, fewer than {MIN_GROUPS}")
    value = min(max(value, 0.0), 1.0)  # means of shares may round beyond
    centre = _inwards(value, n_groups)
    n = centre * (1 - centre) / _variance(value, resampled, n_groups)
    low, high = _wilson(value, n, _quantile(n_groups))
    return Estimate(value, low, high)


def _inwards(value: float, n_groups: float) -> float:
    """The share if there were one more group, half of it right."""
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
    vanish near 0 and 1, and the correlation r of the two bootstraps. If one of them does not vary, r is unknown and
    taken as 0. So two perfect AUCs have a difference of 0 with an interval around it.

    Args:
        one: the minuend.
        other: the subtrahend.
        resampled: [R], `one` on each resample.
        resampled_other: [R], `other` on the same resamples.
        n_groups: as for `interval`.

    Returns:
        NaN bounds and the reason where there are too few groups.
    """
    value = one - other
    for share, drawn in ((one, resampled), (other, resampled_other)):
        if reason := interval(share, drawn, n_groups).reason:
            return Estimate(value, reason=reason)
    both = np.stack([np.asarray(resampled, dtype=np.float64), np.asarray(resampled_other, dtype=np.float64)])
    both = both[:, ~np.isnan(both).any(axis=0)]
    correlation = float(np.corrcoef(*both)[0, 1]) if both.std(axis=1).min() > 1e-12 else 0.0
    v, w = _variance(one, resampled, n_groups), _variance(other, resampled_other, n_groups)
    error = float(np.sqrt(max(v + w - 2 * correlation * np.sqrt(v * w), 0.0)))
    half = _quantile(n_groups) * error
    return Estimate(value, max(value - half, -1.0), min(value + half, 1.0), se=error, df=n_groups - 2)


def mean_interval(values: ArrayLike) -> Estimate:
    """The mean over independent repeats with Student's interval for it.

    Args:
        values: [r], one number a repeat.
    """
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, reason="one repeat")
    error, df = float(values.std(ddof=1) / np.sqrt(len(values))), len(values) - 1
    half = float(stdtrit(df, (1 + LEVEL) / 2)) * error
    return Estimate(mean, mean - half, mean + half, se=error, df=df)
