"""Data whose truth is known: SAE-like features that fire by chance, except those that were planted."""

import numpy as np
from scipy import sparse

from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows

SHARED, SPURIOUS = 17, 42
QUICK = ProbeParams(n_folds=3, C_grid=(0.01, 1.0), N=(2, 8, 32), top_k=3, repeats=4)


def balanced(rng, n):
    return rng.permutation(np.repeat([0, 1], n // 2))


def groups_of(n, size=1):
    return np.array([f"g{i // size}" for i in range(n)])


def features(rng, labels, d=100, density=0.1, planted=None):
    """CSR [n, d]; `planted` maps a feature to how often it fires for (unanswerable, answerable) rows."""
    chance = np.full((len(labels), d), density)
    for feature, rates in (planted or {}).items():
        chance[:, feature] = np.asarray(rates)[labels]
    return sparse.csr_array((rng.random(chance.shape) < chance) * rng.gamma(3.0, 1.0, chance.shape))


def sae_domain(seed, n=240, d=100, density=0.1, planted=None):
    rng = np.random.default_rng(seed)
    labels = balanced(rng, n)
    return Rows(features(rng, labels, d, density, planted), labels, groups_of(n, 2))


def layer_domain(seed, n=240, d=20, direction=None):
    """A dense Gaussian stream; `direction` [d] is the difference of the two classes' means."""
    rng = np.random.default_rng(seed)
    labels = balanced(rng, n)
    shift = np.zeros(d) if direction is None else np.asarray(direction)
    return Rows(rng.normal(size=(n, d)) + np.outer(labels - 0.5, shift), labels, groups_of(n, 2))
