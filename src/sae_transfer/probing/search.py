"""The search over single features: every feature that fires, scored alone by cross-validated logistic regression.

`mean_difference`, the rule of the field's other sparse-probing tools, can put them in order instead.

Scale and bias of one logistic regression are fitted for every feature and every fold at once, by Newton's method over
the non-zero activations alone: a feature's silent rows share one value, so they enter each sum as two counts. That
makes 131,072 features of a wide SAE a matter of a second, where a loop over scikit-learn fits takes hours.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

from sae_transfer.core.arrays import Floats, Ints
from sae_transfer.probing import own_arrays

MIN_ROWS = 10  # a feature firing on fewer training rows is left out
L2 = 1.0  # C = 1: without a penalty the scale of a separable feature diverges
TOLERANCE = 1e-8
TINY = 1e-300
MAX_ITERATIONS = 100


Rule = Literal["auc", "mean_difference"]


@dataclass(frozen=True)
class Ranking:
    """Features from best to worst by a rule; every array is [m] for the m features that fire often enough.

    `auc` and `log_loss` are means over the held-out folds, `density` is the share of rows on which the feature fires.
    """

    feature_ids: Ints
    auc: Floats
    log_loss: Floats
    density: Floats


class Entries(NamedTuple):
    """The non-zeros of some columns, sorted by column and then by value: `column` counts the columns from 0."""

    column: Ints
    row: Ints
    value: Floats


def rank_features(
    features: sparse.csr_array, labels: NDArray[np.int_], folds: NDArray[np.int_], rule: Rule = "auc"
) -> Ranking:
    """Ranks features by mean out-of-fold AUC, then by log loss, then by id; or by difference of means, then by id.

    Method of `auc`: the 1-sparse probe of arXiv 2502.19964. For each feature f and fold, a logistic regression on
    f / RMS(f) with C = 1 is fitted on the other folds (RMS from them too) and scored on the fold.
    Method of `mean_difference`: k-sparse probing in sae-probes (arXiv 2502.16681). The absolute difference of the class
    means on all rows, after dividing each feature by the mean of its non-zero values.

    Args:
        features: [n, d_sae], not negative (SAE activations).
        labels: [n], 0 or 1.
        folds: [n], the fold that each row is held out in; every fold needs both classes.
        rule: what decides the order; AUC and log loss are computed under either.

    Raises:
        UserError: an activation that is negative or not finite.
    """
    columns = _checked(features)
    firing = np.diff(columns.indptr)
    ids = np.flatnonzero(firing >= MIN_ROWS)
    nonzeros = entries(columns[:, ids])
    names = np.unique(folds)
    aucs, losses = np.empty((len(names), len(ids))), np.empty((len(names), len(ids)))
    for i, fold in enumerate(names):
        held_out = folds == fold
        scale, bias = fit_columns(nonzeros, len(ids), labels, ~held_out)
        aucs[i] = _signed_auc(nonzeros, len(ids), labels, held_out, np.sign(scale))
        losses[i] = _log_loss(nonzeros, len(ids), labels, held_out, scale, bias)
    mean_auc, mean_loss = aucs.mean(axis=0), losses.mean(axis=0)
    best = np.lexsort((ids, np.round(mean_loss, 9), -np.round(mean_auc, 12)))  # rounding error must not break a tie
    if rule == "mean_difference":
        best = np.lexsort((ids, -np.round(_mean_difference(nonzeros, len(ids), labels), 12)))
    return Ranking(ids[best], mean_auc[best], mean_loss[best], firing[ids][best] / len(labels))


def _mean_difference(nonzeros: Entries, n_columns: int, labels: NDArray[np.int_]) -> Floats:
    """|difference of the class means| of each column [m], in units of its mean non-zero value."""
    positives = int(labels.sum())
    share = np.where(labels == 1, 1 / positives, -1 / (len(labels) - positives))[nonzeros.row]
    difference = np.bincount(nonzeros.column, share * nonzeros.value, n_columns)
    sums = np.bincount(nonzeros.column, nonzeros.value, n_columns)
    counts = np.bincount(nonzeros.column, minlength=n_columns)
    result: Floats = np.abs(difference) * counts / sums
    return result


def entries(features: sparse.sparray) -> Entries:
    """The non-zeros of some columns [n, m], in the order that the search works through them.

    Raises:
        UserError: an activation that is negative or not finite.
    """
    columns = _checked(features)
    column = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))
    value = columns.data.astype(np.float64)
    order = np.lexsort((value, column))
    return Entries(column[order], columns.indices[order].astype(np.int64), value[order])


def _checked(features: sparse.sparray) -> sparse.csc_array:
    """A copy by columns without stored zeros, which would pass for a feature that fires."""
    columns = sparse.csc_array(features, copy=True)
    columns.eliminate_zeros()
    own_arrays.check_finite(columns, "the matrix of features")
    own_arrays.check_not_negative(columns, "the matrix of features")
    return columns


def _kept(nonzeros: Entries, rows: NDArray[np.bool_]) -> Entries:
    keep = rows[nonzeros.row]
    return Entries(nonzeros.column[keep], nonzeros.row[keep], nonzeros.value[keep])


def fit_columns(
    nonzeros: Entries, n_columns: int, labels: NDArray[np.int_], rows: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Logistic regression on each column alone, over the chosen rows.

    Minimises sum(log loss) + (scale * RMS)^2 / 2: the penalty is on the weight of the column divided by its RMS.

    Args:
        nonzeros: the columns' non-zeros over all rows.
        n_columns: m.
        labels: [n].
        rows: [n], True for the rows to fit on.

    Returns:
        scale [m] (per unit of raw activation) and bias [m]. A column that is silent on the rows has scale 0.
    """
    nonzeros = _kept(nonzeros, rows)
    starts = np.searchsorted(nonzeros.column, np.arange(n_columns))
    counts = np.diff(np.r_[starts, len(nonzeros.column)])
    alive = np.flatnonzero(counts)
    n, positives = int(rows.sum()), int(labels[rows].sum())
    bias = np.full(n_columns, np.log(positives / (n - positives)))
    scale = np.zeros(n_columns)
    if not len(alive):
        return scale, bias
    y = labels[nonzeros.row].astype(np.float64)
    starts, counts = starts[alive], counts[alive]
    rms = np.sqrt(np.add.reduceat(nonzeros.value**2, starts) / n)
    silent = n - counts
    silent_positive = positives - np.add.reduceat(y, starts)
    fitted = _newton(nonzeros.value / np.repeat(rms, counts), y, counts, silent, silent_positive, bias[alive])
    scale[alive], bias[alive] = fitted[0] / rms, fitted[1]
    return scale, bias


def _newton(
    x: Floats, y: Floats, counts: Ints, silent: Ints, silent_positive: Floats, start_bias: Floats
) -> tuple[Floats, Floats]:
    """Newton's steps for all columns, dropping each one as it converges; x and y [nnz] lie column after column.

    Plain Newton cycles on rare, heavy-tailed or imbalanced columns. A step that moves some row's logit by m at most is
    therefore shortened to log(1 + m) / m of itself, which lowers the loss from any start and leaves the last, small
    steps whole (generalised self-concordance: Sun and Tran-Dinh, arXiv 1703.04599, the case nu = 2).
    """
    scale, bias = np.zeros(len(counts)), start_bias.copy()
    largest = np.maximum.reduceat(x, np.r_[0, np.cumsum(counts)[:-1]])
    active = np.arange(len(counts))
    for _ in range(MAX_ITERATIONS):
        starts = np.r_[0, np.cumsum(counts[active])[:-1]]
        of_entry = np.repeat(np.arange(len(active)), counts[active])
        a, b = scale[active], bias[active]
        p = expit(a[of_entry] * x + b[of_entry])
        p_silent = expit(b)
        curvature = p * (1 - p)
        slope_x = curvature * x
        gradient_a = np.add.reduceat((p - y) * x, starts) + L2 * a
        gradient_b = np.add.reduceat(p - y, starts) + silent[active] * p_silent - silent_positive[active]
        h_aa = np.add.reduceat(slope_x * x, starts) + L2
        h_ab = np.add.reduceat(slope_x, starts)
        h_bb = np.add.reduceat(curvature, starts) + silent[active] * p_silent * (1 - p_silent) + 1e-12
        determinant = h_aa * h_bb - h_ab**2
        step_a = (h_bb * gradient_a - h_ab * gradient_b) / determinant
        step_b = (h_aa * gradient_b - h_ab * gradient_a) / determinant
        move = np.maximum(np.abs(step_b), np.abs(step_a * largest[active] + step_b))
        shrink = np.log1p(move) / np.maximum(move, TINY)
        scale[active] -= shrink * step_a
        bias[active] -= shrink * step_b
        moving = np.maximum(np.abs(step_a), move) > TOLERANCE
        if not moving.any():
            break
        if moving.mean() < 0.7:  # compacting costs a copy: only when it saves enough
            keep = np.repeat(moving, counts[active])
            x, y, active = x[keep], y[keep], active[moving]
    return scale, bias


def column_auc(features: sparse.sparray, labels: NDArray[np.int_], sign: Floats) -> Floats:
    """AUC of sign * column over all rows, for every column [m]; ties, silent rows included, count one half.

    Args:
        features: [n, m], not negative.
        labels: [n], 0 or 1.
        sign: [m], above 0, below 0, or 0 for a column that has none, whose AUC is 0.5.

    Returns:
        NaN where only one class is there.
    """
    if len(np.unique(labels)) < 2:
        return np.full(len(sign), np.nan)
    return _signed_auc(entries(features), len(sign), labels, np.ones(len(labels), dtype=bool), sign)


def _signed_auc(
    nonzeros: Entries, n_columns: int, labels: NDArray[np.int_], rows: NDArray[np.bool_], sign: Floats
) -> Floats:
    """AUC of sign * column on the chosen rows, for every column [m]; ties, silent rows included, count one half."""
    nonzeros = _kept(nonzeros, rows)
    y = labels[nonzeros.row].astype(np.float64)
    positives, negatives = float(labels[rows].sum()), float(rows.sum() - labels[rows].sum())
    fired_positive = np.bincount(nonzeros.column, y, n_columns)
    fired_negative = np.bincount(nonzeros.column, 1 - y, n_columns)
    silent_positive, silent_negative = positives - fired_positive, negatives - fired_negative
    wins = silent_positive * silent_negative / 2
    if len(y):
        new = (nonzeros.column[1:] != nonzeros.column[:-1]) | (nonzeros.value[1:] != nonzeros.value[:-1])
        starts = np.flatnonzero(np.r_[True, new])
        column = nonzeros.column[starts]
        above, below = np.add.reduceat(y, starts), np.add.reduceat(1 - y, starts)
        seen = np.cumsum(below) - below / 2 - (np.cumsum(fired_negative) - fired_negative)[column]
        wins += np.bincount(column, above * (silent_negative[column] + seen), n_columns)
    area = wins / (positives * negatives)
    return np.where(sign > 0, area, np.where(sign < 0, 1 - area, 0.5))


def _log_loss(
    nonzeros: Entries,
    n_columns: int,
    labels: NDArray[np.int_],
    rows: NDArray[np.bool_],
    scale: Floats,
    bias: Floats,
) -> Floats:
    """Mean log loss of each column's logistic regression on the chosen rows [m]."""
    nonzeros = _kept(nonzeros, rows)
    y = labels[nonzeros.row].astype(np.float64)
    logit = scale[nonzeros.column] * nonzeros.value + bias[nonzeros.column]
    fired = np.bincount(nonzeros.column, np.logaddexp(0, logit) - y * logit, n_columns)
    n, positives = int(rows.sum()), float(labels[rows].sum())
    silent = n - np.bincount(nonzeros.column, minlength=n_columns)
    silent_positive = positives - np.bincount(nonzeros.column, y, n_columns)
    return (fired + silent * np.logaddexp(0, bias) - silent_positive * bias) / n
