"""How alike directions of the residual stream are. Pure functions on arrays."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from sae_transfer.core.arrays import Floats

CHUNK = 4096  # directions of `a` at a time


def cosine(a: ArrayLike, b: ArrayLike) -> Floats:
    """The cosine of every direction of `a` [m, d] with every one of `b` [n, d]: [m, n], NaN for a zero direction."""
    b = np.asarray(b, dtype=np.float64)
    b_squared = (b**2).sum(axis=1)
    chunks = [_ratio(part @ b.T, (part**2).sum(axis=1), b_squared) for part in _chunks(a)]
    return np.concatenate(chunks)


def mahalanobis_cosine(a: ArrayLike, b: ArrayLike, covariance: ArrayLike) -> Floats:
    """The cosine under a covariance S of activations: a'Sb / sqrt(a'Sa b'Sb).

    It is the correlation, over rows with that covariance, of the scores that the two directions give. Source: arXiv
    2606.19603.

    Args:
        a: [m, d].
        b: [n, d].
        covariance: [d, d], symmetric, positive semidefinite.

    Returns:
        [m, n]; NaN where a direction's scores do not vary.
    """
    b, S = (np.asarray(array, dtype=np.float64) for array in (b, covariance))
    S_b = S @ b.T
    b_squared = (S_b * b.T).sum(axis=0)
    chunks = [_ratio(part @ S_b, ((part @ S) * part).sum(axis=1), b_squared) for part in _chunks(a)]
    return np.concatenate(chunks)


def _chunks(a: ArrayLike) -> Iterator[Floats]:
    """The directions in float64, CHUNK at a time, at least one part. Those of a wide SAE would take gigabytes."""
    a = np.asarray(a)
    for start in range(0, max(len(a), 1), CHUNK):
        yield a[start : start + CHUNK].astype(np.float64)


def _ratio(products: Floats, a_squared: Floats, b_squared: Floats) -> Floats:
    size = np.sqrt(np.outer(np.maximum(a_squared, 0), np.maximum(b_squared, 0)))
    ratio: Floats = np.divide(products, size, out=np.full(size.shape, np.nan), where=size > 0)
    return ratio.clip(-1, 1)
