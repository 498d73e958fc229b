"""Distances between the distributions of a column's values on two datasets, for many sparse columns at once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.core.arrays import Floats


class Distances(NamedTuple):
    """Each [m]. `wasserstein` is in units of the columns, `ks` between 0 and 1."""

    wasserstein: Floats
    ks: Floats


def distances(a: sparse.csr_array, b: sparse.csr_array) -> Distances:
    """Wasserstein-1 distance and Kolmogorov-Smirnov statistic between two samples of each column.

    Both come from the two distribution functions. These step at the non-zeros, and once at 0 for all silent rows.

    Args:
        a: [n, m], not negative.
        b: [k, m], not negative.
    """
    column, value, step = _steps(a, b)
    order = np.lexsort((value, column))
    column, value, step = column[order], value[order], step[order]
    m = a.shape[1]
    at_zero = -np.bincount(column, step, m).astype(np.float64)  # both end at 1
    ends = np.r_[column[1:] != column[:-1], True] if len(column) else np.empty(0, dtype=bool)
    starts = np.r_[True, ends[:-1]] if len(column) else ends
    total = np.cumsum(step)
    before = np.where(starts, total - step, 0)[np.maximum.accumulate(np.where(starts, np.arange(len(column)), 0))]
    gap = total - before + at_zero[column]  # F_a - F_b from this value on to the next
    width = np.where(ends, 0.0, np.diff(value, append=0.0))
    first = np.bincount(column[starts], value[starts], m)  # from 0 to the first value
    distance = np.bincount(column, np.abs(gap) * width, m) + np.abs(at_zero) * first
    largest = np.abs(at_zero)
    np.maximum.at(largest, column[(width > 0) | ends], np.abs(gap[(width > 0) | ends]))  # within a tie it is no value
    return Distances(distance, largest)


def _steps(a: sparse.csr_array, b: sparse.csr_array) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Column, value and step of F_a - F_b at each non-zero of either."""
    parts = [(sparse.coo_array(a), 1 / a.shape[0]), (sparse.coo_array(b), -1 / b.shape[0])]
    column = np.concatenate([part.coords[1] for part, _ in parts]).astype(np.int64)
    value = np.concatenate([part.data for part, _ in parts]).astype(np.float64)
    step = np.concatenate([np.full(part.nnz, height) for part, height in parts])
    return column, value, step
