"""How alike directions of the residual stream are. Pure functions on arrays."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def cosine(a: ArrayLike, b: ArrayLike) -> Floats:
    """The cosine of every direction of `a` [m, d] with every one of `b` [n, d]: [m, n], NaN for a zero direction."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return _ratio(a @ b.T, (a**2).sum(axis=1), (b**2).sum(axis=1))


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
    a, b, S = (np.asarray(array, dtype=np.float64) for array in (a, b, covariance))
    a_S = a @ S
    return _ratio(a_S @ b.T, (a_S * a).sum(axis=1), ((b @ S) * b).sum(axis=1))


def _ratio(products: Floats, a_squared: Floats, b_squared: Floats) -> Floats:
    size = np.sqrt(np.outer(np.maximum(a_squared, 0), np.maximum(b_squared, 0)))
    ratio: Floats = np.divide(products, size, out=np.full(size.shape, np.nan), where=size > 0)
    return ratio.clip(-1, 1)
