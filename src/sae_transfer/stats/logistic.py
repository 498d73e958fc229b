"""L2-regularised logistic regression, fitted along a path of penalties. Pure functions on arrays."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import expit

from sae_transfer.core.arrays import Floats

Scaling = Literal["rms", "standard", "none"]
NEWTON_COLUMNS = 400  # a Newton step solves a system of that size; beyond, quasi-Newton steps are cheaper


def fit_logistic(X: NDArray[Any], labels: NDArray[np.int_], C: float, start: Floats | None = None) -> Floats:
    """L2-regularised logistic regression, scikit-learn's objective: C * sum(log loss) + |w|^2 / 2, the bias free.

    Newton's method with step halving, or L-BFGS where there are many columns. Columns should be of comparable size
    (`fit_path` scales them).

    Args:
        X: [n, d].
        labels: [n], 0 or 1.
        C: inverse strength of the penalty.
        start: [d + 1], a guess such as the solution for another C.

    Returns:
        [d + 1], the weights and then the bias.
    """
    X1 = np.c_[np.asarray(X, dtype=np.float64), np.ones(len(X))]
    penalty = np.r_[np.full(X1.shape[1] - 1, 1 / C), 1e-12]
    w = np.zeros(X1.shape[1]) if start is None else start
    solve = _newton if X1.shape[1] <= NEWTON_COLUMNS else _quasi_newton
    return solve(X1, np.asarray(labels), penalty, w)


def _loss(w: Floats, X1: Floats, labels: NDArray[np.int_], penalty: Floats) -> float:
    logit = X1 @ w
    return float(np.sum(np.logaddexp(0, logit) - labels * logit) + penalty @ w**2 / 2)


def _newton(X1: Floats, labels: NDArray[np.int_], penalty: Floats, w: Floats) -> Floats:
    now = _loss(w, X1, labels, penalty)
    for _ in range(100):
        p = expit(X1 @ w)
        gradient = X1.T @ (p - labels) + penalty * w
        hessian = (X1 * (p * (1 - p))[:, None]).T @ X1
        hessian.flat[:: len(penalty) + 1] += penalty
        _, step, failed = linalg.lapack.dposv(hessian, gradient)
        if failed:
            raise FloatingPointError("the Hessian is not positive definite: are the columns of comparable size?")
        decrease = float(gradient @ step)
        if decrease < 1e-12 * max(now, 1.0):
            break
        size = 1.0
        while (new := _loss(w - size * step, X1, labels, penalty)) > now - 1e-4 * size * decrease and size > 1e-6:
            size /= 2
        w, now = w - size * step, new
    return np.asarray(w, dtype=np.float64)


def _quasi_newton(X1: Floats, labels: NDArray[np.int_], penalty: Floats, w: Floats) -> Floats:
    from scipy import optimize  # here, for start-up time

    def loss_and_gradient(w: Floats) -> tuple[float, Floats]:
        gradient = X1.T @ (expit(X1 @ w) - labels) + penalty * w
        return _loss(w, X1, labels, penalty), np.asarray(gradient, dtype=np.float64)

    found = optimize.minimize(
        loss_and_gradient,
        w,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 10_000, "maxfun": 20_000, "ftol": 1e-14, "gtol": 1e-6},
    )
    return np.asarray(found.x, dtype=np.float64)


def log_loss(logits: Floats, labels: NDArray[np.int_]) -> float:
    """The mean of -log(probability of the true label) in nats, of logits [n] and labels [n]."""
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))


def fit_path(
    X: NDArray[Any], labels: NDArray[np.int_], Cs: Sequence[float], scaling: Scaling
) -> list[tuple[Floats, float]]:
    """Logistic regressions along a path of penalties, on scaled columns.

    Args:
        X: [n, d].
        labels: [n].
        Cs: ascending, so that each fit starts near the last.
        scaling: `standard` gives each column zero mean and unit deviation. `rms` divides each by its root mean square
            and does not centre it, so that a silent feature stays zero. `none` takes the columns as they are, so that
            a feature that fires strongly is penalised less.

    Returns:
        (weights [d], bias) on the raw columns, one for each C. A constant column gets no weight under `standard`.
    """
    X = np.asarray(X, dtype=np.float64)
    mean, factor = _scaled(X, scaling)
    fits = _path((X - mean) * factor, labels, Cs)
    return [(w[:-1] * factor, float(w[-1] - (w[:-1] * factor) @ mean)) for w in fits]


def _scaled(X: Floats, scaling: Scaling) -> tuple[Floats, Floats]:
    """The mean that is taken from each column, and the factor that it is multiplied by."""
    nothing, one = np.zeros(X.shape[1]), np.ones(X.shape[1])
    if scaling == "none":
        return nothing, one
    if scaling == "rms":
        rms = np.sqrt(np.mean(X**2, axis=0))
        return nothing, np.divide(1.0, rms, out=np.zeros_like(rms), where=rms > 0)
    deviation = X.std(axis=0)
    varies = X.min(axis=0) < X.max(axis=0)  # rounding gives a constant column a tiny deviation
    return X.mean(axis=0), np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)


def _path(X: Floats, labels: NDArray[np.int_], C: Sequence[float]) -> list[Floats]:
    """`fit_logistic` for each C. If d > n, it uses the rows' inner products: every optimum is a combination of rows."""
    if X.shape[1] > X.shape[0]:
        gram = np.asarray(X @ X.T, dtype=np.float64)
        duals = [_dual_newton(gram, labels, c) for c in C]
        return [np.r_[X.T @ of_row, bias] for of_row, bias in duals]
    fits: list[Floats] = []
    for c in C:
        fits.append(fit_logistic(X, labels, c, fits[-1] if fits else None))
    return fits


def _dual_newton(gram: Floats, labels: NDArray[np.int_], C: float) -> tuple[Floats, float]:
    """`fit_logistic` in terms of the rows: weights = X' of_row. A step solves a system of n, whatever d is.

    Newton's method as reweighted kernel ridge regression, the bias free (Rasmussen and Williams, Gaussian Processes
    for Machine Learning, 2006, section 3.4: its B = 1 + W^(1/2) K W^(1/2) is well conditioned).

    Args:
        gram: X X' [n, n].
        labels: [n], 0 or 1.
        C: inverse strength of the penalty.

    Returns:
        of_row [n], and the bias.
    """

    def loss(logit: Floats, of_row: Floats, score: Floats) -> float:
        return float(C * np.sum(np.logaddexp(0, logit) - labels * logit) + of_row @ score / 2)

    of_row, score, bias = np.zeros(len(gram)), np.zeros(len(gram)), 0.0
    now = loss(score, of_row, score)
    for _ in range(100):
        p = expit(score + bias)
        root = np.sqrt(np.maximum(C * p * (1 - p), 1e-10))
        system = gram * root[:, None] * root
        system.flat[:: len(gram) + 1] += 1
        target = root * (score + bias) + C * (labels - p) / root
        factor = linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
        solved = root[:, None] * linalg.cho_solve(factor, np.c_[target, root], check_finite=False)
        new_bias = solved[:, 0].sum() / solved[:, 1].sum()
        step, bias_step = solved[:, 0] - new_bias * solved[:, 1] - of_row, new_bias - bias
        score_step = gram @ step
        decrease = float(C * (labels - p) @ (score_step + bias_step) - score @ step)
        if decrease < 1e-12 * max(now, 1.0):
            return of_row + step, float(new_bias)
        size = 1.0
        while size > 1e-6:
            moved = of_row + size * step, score + size * score_step, bias + size * bias_step
            new = loss(moved[1] + moved[2], moved[0], moved[1])
            if new <= now - 1e-4 * size * decrease:
                break
            size /= 2
        (of_row, score, bias), now = moved, new
    return of_row, float(bias)
