"""Probes on the residual stream: logistic regression, difference of means, principal components."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_transfer.core.arrays import Floats, Ints
from sae_transfer.core.randomness import rng_for
from sae_transfer.probing.cross_validation import PathScores, choose, score_path
from sae_transfer.probing.probe import Probe, decision_function
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows
from sae_transfer.stats.logistic import fit_path


def residual(train: Rows, seed: int, params: ProbeParams) -> list[Probe]:
    """The residual stream probe: standardised L2 logistic regression, C by cross-validation."""
    return residual_by_both_rules(train, seed, params)[:1]


def residual_by_both_rules(train: Rows, seed: int, params: ProbeParams) -> list[Probe]:
    """The residual stream probe, and beside it the one whose C the other rule of selection chooses."""
    grid = sorted(params.C_grid)
    every, folded = [train.X.shape[1]], train.folded(params.n_folds, seed)
    folds = [score_path(rest, test, every, grid, "standard") for rest, test in folded]
    found = []
    for kind, rule in (("residual", params.selection), ("other_rule", params.other_selection)):
        choice = choose(folds, grid, rule)
        weights, bias = fit_path(train.X, train.labels, [choice.C], "standard")[0]
        found.append(Probe(kind, "residual", weights, bias, C=choice.C, scaling="standard", **choice.about))
    return found


def mean_difference(train: Rows, seed: int, params: ProbeParams) -> list[Probe]:
    """The direction from the mean of the unanswerable rows to the mean of the answerable ones.

    Its score is no logit: slope and offset come from a logistic regression of one variable on out-of-fold scores.
    """
    held_out = [
        (decision_function(test.X, _mean_direction(rest)), test.labels)
        for rest, test in train.folded(params.n_folds, seed)
    ]
    scores, labels = (np.concatenate(parts) for parts in zip(*held_out, strict=True))
    slope, offset = fit_path(scores[:, None], labels, [1.0], "rms")[0]
    weights, bias = _mean_direction(train)
    return [Probe("mean_difference", "residual", weights, bias, platt_slope=float(slope[0]), platt_bias=offset)]


def _mean_direction(train: Rows) -> tuple[Floats, float]:
    X, positive = np.asarray(train.X, dtype=np.float64), train.labels == 1
    high, low = X[positive].mean(axis=0), X[~positive].mean(axis=0)
    return high - low, float((low - high) @ (high + low) / 2)


def refit_residual(probe: Probe, train: Rows, _best: Ints, _seed: int, _params: ProbeParams) -> Probe:
    """The residual probe, trained anew at its own C."""
    weights, bias = fit_path(train.X, train.labels, [probe.C], "standard")[0]
    return replace(probe, weights=weights, bias=bias)


def refit_mean_difference(_probe: Probe, train: Rows, _best: Ints, seed: int, params: ProbeParams) -> Probe:
    """The difference of means, trained anew."""
    return mean_difference(train, seed, params)[0]


def shuffled_residual(train: Rows, seed: int, params: ProbeParams, C: float, place: str = "") -> list[Probe]:
    """The negative control: the residual probe at its own C, trained on permuted labels, several times.

    `place` names space and dataset, so that each has shuffles of its own.
    """
    probes = []
    for repeat in range(params.repeats):
        labels = rng_for(seed, "shuffled labels", place, repeat).permutation(train.labels)
        weights, bias = fit_path(train.X, labels, [C], "standard")[0]
        probes.append(
            Probe(
                "shuffled_labels", "residual", weights, bias, C=C, repeat=repeat, scaling="standard", n_train=len(train)
            )
        )
    return probes


def pca(train: Rows, seed: int, params: ProbeParams) -> list[Probe]:
    """Logistic regression on the k first principal components, k from the grid of N and C by cross-validation.

    Components are centred, each of unit variance, and learnt anew in every fold. n rows have at most n - 1 components.
    """
    folded = [(_principal(rest.X, max(params.N)), rest, test) for rest, test in train.folded(params.n_folds, seed)]
    most = min(len(components) for (_, components), _, _ in folded)
    grid, sizes = sorted(params.C_grid), [k for k in sorted(params.N) if k <= most] or [max(most, 1)]
    choice = choose([_component_scores(*fold, sizes, grid) for fold in folded], grid, params.selection)
    k, C = sizes[choice.size], choice.C
    mean, components = _principal(train.X, k)
    weights, bias = fit_path((train.X - mean) @ components.T, train.labels, [C], "standard")[0]
    direction = components.T @ weights
    offset = bias - float(mean @ direction)
    return [Probe("pca", "residual", direction, offset, C=C, scaling="standard", n_components=k, **choice.about)]


def _principal(X: NDArray[Any], k: int) -> tuple[Floats, Floats]:
    """(mean [d], the k first principal directions [k or fewer, d]) of X [n, d]; constant X has one, which is 0."""
    X = np.asarray(X, dtype=np.float64)
    mean = X.mean(axis=0)
    by_row, centred = len(X) < X.shape[1], X - mean  # the smaller Gram matrix has the same spectrum
    variances, vectors = np.linalg.eigh(centred @ centred.T if by_row else centred.T @ centred)
    varies = variances[::-1][:k] > 1e-12 * (X**2).sum()  # rounding gives constant columns a little
    directions = vectors[:, ::-1][:, :k][:, varies]
    if by_row:
        directions = centred.T @ directions / np.sqrt(variances[::-1][:k][varies])
    if not directions.size:
        return mean, np.zeros((1, X.shape[1]))
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    return mean, (directions * signs).T


def _component_scores(
    basis: tuple[Floats, Floats], rest: Rows, test: Rows, sizes: list[int], grid: list[float]
) -> PathScores:
    mean, components = basis
    fitting, unseen = (replace(rows, X=(rows.X - mean) @ components.T) for rows in (rest, test))
    return score_path(fitting, unseen, sizes, grid, "standard")


def reconstruction(rebuilt: Rows, seed: int, params: ProbeParams) -> list[Probe]:
    """The residual stream probe, trained on the SAE's reconstruction of the residual stream."""
    return [replace(probe, kind="reconstruction", input="reconstruction") for probe in residual(rebuilt, seed, params)]
