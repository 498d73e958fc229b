"""What a sceptic sets beside an SAE's features, tuned with the same grids and folds. Pure functions on arrays.

PCA: is it sparsity, or would any few directions do? The SAE's reconstruction: is the information still there, however
it is coded? Random features of the SAE: does the selection matter? A random SAE, selection included: does the
training of the SAE matter?
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.logistic import standardised
from sae_transfer.metrics import auc
from sae_transfer.probes import (
    Floats,
    Ints,
    Probe,
    ProbeParams,
    Training,
    cross_validate,
    linear,
    mean_over_folds,
    ranked,
    residual,
    sparse_1,
    sparse_n,
)
from sae_transfer.records import generator
from sae_transfer.search import MIN_ROWS

NEAREST = 10  # a feature of matched density is drawn from that many of the nearest densities
CHUNK_BYTES = 256 * 2**20  # of one dense block of a random SAE's features


def layer_baselines(train: Training, seed: int, params: ProbeParams) -> list[Probe]:
    """Every baseline of a residual stream space."""
    return cross_validate(partial(pca, params=params), train, seed, params)


def sae_baselines(
    train: Training, stream: Training, rebuilt: Training, fitted: list[Probe], seed: int, params: ProbeParams
) -> list[Probe]:
    """Every baseline of an SAE's feature space.

    Args:
        train: A's training rows as features [n, d_sae].
        stream: the same rows as residual stream [n, d_model].
        rebuilt: the same rows as the SAE's reconstruction of it [n, d_model].
        fitted: the SAE's own probes, whose N and C the random ones take over.
        seed: of the study.
        params: of the probes.
    """
    one = next(probe for probe in fitted if probe.kind == "sparse_1")
    many = next(probe for probe in fitted if probe.kind == "sparse_n" and probe.selected)
    return [
        *cross_validate(partial(reconstruction, params=params), rebuilt, seed, params),
        *random_features(train, one, many, seed, params),
        *random_sae(train, stream, many, seed, params),
    ]


def pca(train: Training, seed: int, params: ProbeParams) -> list[Probe]:
    """Logistic regression on the k first principal components, k from the grid of N and C by cross-validation.

    Components are centred, each of unit variance, and learnt anew in every fold; ties go to the smaller k, then the
    smaller C. k ends where the rows do: n rows have n - 1 components.
    """
    folded = [(_principal(rest.X, max(params.N)), rest, test) for rest, test in train.folded(params.n_folds, seed)]
    most = min(len(components) for (_, components), _, _ in folded)
    grid, sizes = sorted(params.C), [k for k in sorted(params.N) if k <= most] or [max(most, 1)]
    areas = mean_over_folds([_component_areas(*fold, sizes, grid) for fold in folded])
    best = int(np.argmax(areas.max(axis=1)))
    k, C = sizes[best], grid[int(np.argmax(areas[best]))]
    mean, components = _principal(train.X, k)
    weights, bias = standardised((train.X - mean) @ components.T, train.labels, [C])[0]
    direction = components.T @ weights
    return [
        Probe("pca", "residual", direction, bias - float(mean @ direction), C=C, scaling="standard", n_components=k)
    ]


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


def _component_areas(
    basis: tuple[Floats, Floats], rest: Training, test: Training, sizes: list[int], grid: list[float]
) -> list[list[float]]:
    mean, components = basis
    X, unseen = (rest.X - mean) @ components.T, (test.X - mean) @ components.T
    return [
        [auc(linear(unseen[:, :k], fit), test.labels) for fit in standardised(X[:, :k], rest.labels, grid)]
        for k in sizes
    ]


def reconstruction(rebuilt: Training, seed: int, params: ProbeParams) -> list[Probe]:
    """The residual stream probe's training on what the SAE makes of the residual stream."""
    return [replace(probe, kind="reconstruction", reads="reconstruction") for probe in residual(rebuilt, seed, params)]


def random_features(train: Training, one: Probe, many: Probe, seed: int, params: ProbeParams) -> list[Probe]:
    """Probes of 1 and of N random features, each about as dense as the selected one in whose place it stands."""
    counts = np.bincount(sparse.csr_array(train.X).nonzero()[1], minlength=train.X.shape[1])
    probes = []
    for repeat in range(params.repeats):
        rng = generator(seed, "random features", repeat)
        single, several = (matched_features(counts, _ids(probe), rng) for probe in (one, many))
        pair = [sparse_1(train, single)[0], sparse_n(train, several, many.C, selected=True)]
        probes += [replace(p, kind="random_features", repeat=repeat, n_train=len(train), ranking="") for p in pair]
    return sorted(probes, key=lambda probe: probe.family)


def _ids(probe: Probe) -> Ints:
    assert probe.feature_ids is not None
    return probe.feature_ids


def matched_features(counts: NDArray[Any], chosen: Ints, rng: np.random.Generator) -> Ints:
    """For each chosen feature another one, drawn from the `NEAREST` that fire on about as many rows.

    Args:
        counts: [d_sae], on how many training rows each feature fires.
        chosen: [k] features, each firing at least once.
        rng: what draws.

    Returns:
        [k] different features that fire on enough rows; none is a chosen one unless there are too few others.
    """
    eligible = np.flatnonzero(counts >= MIN_ROWS)
    others = np.setdiff1d(eligible, chosen)
    left = rng.permutation(others if len(others) >= len(chosen) else eligible)
    taken = []
    for feature in chosen:
        distance = np.abs(np.log(counts[left] / counts[feature]))
        place = rng.choice(np.argsort(distance, kind="stable")[:NEAREST])
        taken.append(left[place])
        left = np.delete(left, place)
    return np.array(taken, dtype=np.int64)


def random_sae(train: Training, stream: Training, many: Probe, seed: int, params: ProbeParams) -> list[Probe]:
    """Probes of 1 and of N features of an SAE with random weights, chosen among all of its features as the SAE's are.

    The random SAE has a unit direction of its own for every feature of the SAE, and a threshold at which it fires on as
    many of A's training rows as that feature does: equal L0, and equal densities one by one. Features on fewer than
    `MIN_ROWS` rows cannot be chosen and are not computed. Such a probe carries the encoder of its features.
    """
    density = np.bincount(sparse.csr_array(train.X).nonzero()[1], minlength=train.X.shape[1])
    counts = np.sort(density[density >= MIN_ROWS])[::-1]
    probes = []
    for repeat in range(params.repeats):
        X, thresholds = random_encoding(stream.X, counts, seed, repeat)
        coded = replace(stream, X=X)
        best = ranked(coded, seed, params).feature_ids
        best = best if len(best) else np.arange(1)  # constant activations: a feature that is silent
        pair = [sparse_1(coded, best[:1])[0], sparse_n(coded, best[: many.n_features], many.C, selected=True)]
        directions = _directions(stream.X.shape[1], len(counts), seed, repeat, best[: many.n_features])
        for probe in pair:
            k = len(probe.weights)
            plain = replace(probe, kind="random_sae", repeat=repeat, n_train=len(train), feature_ids=None)
            encoder = np.vstack([directions[:, :k], -thresholds[best[:k]]]).astype(np.float32)
            probes.append(replace(plain, reads="residual", encoder=encoder))
    return sorted(probes, key=lambda probe: probe.family)


def random_encoding(stream: NDArray[Any], counts: Ints, seed: int, repeat: int) -> tuple[sparse.csr_array, Floats]:
    """The features of a random SAE, relu(x . direction - threshold), in chunks of columns that bound the memory.

    Args:
        stream: [n, d_model].
        counts: [m], on how many of the n rows each feature shall fire.
        seed: of the study.
        repeat: which random SAE.

    Returns:
        CSR [n, m] and the thresholds [m].
    """
    blocks, thresholds, start = [], [], 0
    for directions in _chunks(len(stream), stream.shape[1], len(counts), seed, repeat):
        z = np.asarray(stream, dtype=np.float64) @ directions
        threshold = _thresholds(z, counts[start : start + z.shape[1]])
        blocks.append(sparse.csc_array(np.maximum(z - threshold, 0.0)))
        thresholds.append(threshold)
        start += z.shape[1]
    return sparse.csr_array(sparse.hstack(blocks)), np.concatenate(thresholds)


def _thresholds(z: Floats, counts: Ints) -> Floats:
    """For each column of z [n, m] what just its `counts` largest values exceed."""
    n, columns = len(z), np.arange(z.shape[1])
    ordered = np.sort(z, axis=0)
    last = ordered[n - counts, columns]  # the smallest value that fires
    below = np.where(
        counts < n, ordered[np.maximum(n - counts - 1, 0), columns], last - np.maximum(z.std(axis=0), 1e-6)
    )
    middle: Floats = (last + below) / 2
    return middle


def _chunks(n: int, d_model: int, m: int, seed: int, repeat: int) -> Iterator[Floats]:
    """Unit directions [d_model, up to width] of one random SAE, in an order that the width does not change."""
    rng = generator(seed, "random SAE", repeat)
    width = max(1, CHUNK_BYTES // (8 * max(n, d_model)))
    for start in range(0, m, width):
        drawn = rng.normal(size=(min(width, m - start), d_model))
        yield (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).T


def _directions(d_model: int, m: int, seed: int, repeat: int, wanted: Ints) -> Floats:
    """[d_model, k] the wanted directions of one random SAE, drawn again."""
    found, start = np.empty((d_model, len(wanted))), 0
    for chunk in _chunks(1, d_model, m, seed, repeat):
        here = (wanted >= start) & (wanted < start + chunk.shape[1])
        found[:, here] = chunk[:, wanted[here] - start]
        start += chunk.shape[1]
    return found
