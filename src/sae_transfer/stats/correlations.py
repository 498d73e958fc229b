"""Correlations of columns, dense or sparse. Pure functions on arrays."""

import numpy as np

from sae_transfer.core.arrays import Floats, Matrix


def correlations(X: Matrix, Y: Matrix) -> Floats:
    """Pearson's correlation of every column of X with every column of Y; NaN for a constant column.

    Work on sparse columns is proportional to their non-zeros. The result is dense: give few columns of X at a time.

    Args:
        X: [n, p], dense or sparse.
        Y: [n, m], dense or sparse, the same rows.

    Returns:
        [p, m].
    """
    (X, mean_x, spread_x), (Y, mean_y, spread_y) = _moments(X), _moments(Y)
    products = X.T @ Y
    mean = (products if isinstance(products, np.ndarray) else products.toarray()) / X.shape[0]
    covariance, size = mean - np.outer(mean_x, mean_y), np.outer(spread_x, spread_y)
    found: Floats = np.divide(covariance, size, out=np.full(size.shape, np.nan), where=size > 0)
    return found.clip(-1, 1)


def _moments(X: Matrix) -> tuple[Matrix, Floats, Floats]:
    """The columns in float64, their means, and their deviations, 0 where constant. Dense columns come centred."""
    X = X.astype(np.float64)
    mean = np.asarray(X.mean(axis=0)).ravel()
    if isinstance(X, np.ndarray):
        X = X - mean
        variance, left = (X**2).mean(axis=0), np.zeros(X.shape[1])
    else:
        variance, left = np.asarray(X.multiply(X).mean(axis=0)).ravel() - mean**2, mean
    varies = variance > 1e-12 * (mean**2 + 1e-300)  # rounding gives a constant column a tiny deviation
    return X, left, np.sqrt(np.where(varies, variance, 0))
