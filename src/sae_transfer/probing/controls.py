"""Random features and random SAEs: do the selection and the training of the SAE matter?"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.core.arrays import Floats, Ints
from sae_transfer.core.randomness import rng_for
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import ranked, sparse_1, sparse_n
from sae_transfer.probing.search import MIN_ROWS, Rule

NEAREST = 10  # a feature of matched density is drawn from that many of the nearest densities
CHUNK_BYTES = 256 * 2**20  # of one dense block of a random SAE's features


def random_features(train: Rows, one: Probe, many: Probe, seed: int, params: ProbeParams) -> list[Probe]:
    """Probes of 1 and of N random features. Each is about as dense as the selected feature that it replaces."""
    counts = np.bincount(sparse.csr_array(train.X).nonzero()[1], minlength=train.X.shape[1])
    probes = []
    for repeat in range(params.repeats):
        rng = rng_for(seed, "random features", repeat)
        single, several = (matched_features(counts, _ids(probe), rng) for probe in (one, many))
        pair = [
            sparse_1(train, single)[0],
            sparse_n(train, several, many.C, selected=True, scaling=params.scaling),
        ]
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


def random_sae(train: Rows, stream: Rows, many: Probe, seed: int, params: ProbeParams) -> list[Probe]:
    """Probes of 1 and of N features of an SAE with random weights, selected as the real SAE's features are.

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
        best, best_n = (_best(coded, seed, params, rule) for rule in (params.ranking, params.rule_n))
        rules: dict[str, Any] = {"ranking": params.rule_n, "scaling": params.scaling}
        pair = [
            (sparse_1(coded, best[:1], params.ranking)[0], best[:1]),
            (sparse_n(coded, best_n[: many.n_features], many.C, selected=True, **rules), best_n[: many.n_features]),
        ]
        for probe, chosen in pair:
            directions = _directions(stream.X.shape[1], len(counts), seed, repeat, chosen)
            plain = replace(probe, kind="random_sae", repeat=repeat, n_train=len(train), feature_ids=None)
            encoder = np.vstack([directions, -thresholds[chosen]]).astype(np.float32)
            probes.append(replace(plain, input="residual", encoder=encoder))
    return sorted(probes, key=lambda probe: probe.family)


def _best(coded: Rows, seed: int, params: ProbeParams, rule: Rule) -> Ints:
    found = ranked(coded, seed, params, rule).feature_ids
    return found if len(found) else np.arange(1)  # constant activations: a feature that is silent


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
    """For each column of z [n, m] the threshold that exactly its `counts` largest values exceed."""
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
    rng = rng_for(seed, "random SAE", repeat)
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
