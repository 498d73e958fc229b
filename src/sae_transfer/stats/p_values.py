"""p-values of paired differences, and their correction for the number of comparisons."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr

from sae_transfer.core.arrays import Floats
from sae_transfer.stats.intervals import Estimate

SIGNIFICANT = 0.05
TINY = 1e-12


def student_p(difference: Estimate) -> float:
    """The two-sided p-value of "no difference" that belongs to the interval of `difference_interval`.

    Student's test with that interval's standard error and degrees of freedom: p is below 0.05 where the interval
    excludes 0, and the number of resamples does not bound it from below.

    Returns:
        NaN where there is no interval; 1 where the two are equal.
    """
    if np.isnan(difference.se):
        return np.nan
    if abs(difference.value) < TINY:  # rounding
        return 1.0
    t = abs(difference.value) / difference.se if difference.se else np.inf
    return float(2 * stdtr(difference.df, -t))


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
