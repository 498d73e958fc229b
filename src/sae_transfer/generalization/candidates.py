"""Candidates: score columns that were made on A and may be used on B, features of an SAE or whole probes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.generalization.domains import Domain
from sae_transfer.probes import Probe
from sae_transfer.search import Ranking

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TOP = 100
RANDOM = 200
BINS = 10
TINY = 1e-12
FEATURES = ("top", "random")  # the origins of features


@dataclass(frozen=True)
class Stream:
    """A domain's training rows in the residual stream [n, d_model], its test rows, and the probes trained on it."""

    rows: NDArray[np.float32]
    unseen: NDArray[np.float32]
    residual: Probe
    mean_difference: Probe

    @cached_property
    def covariance(self) -> Floats:
        """[d_model, d_model]."""
        return np.atleast_2d(np.cov(self.rows, rowvar=False, dtype=np.float64))


@dataclass(frozen=True)
class Candidates:
    """m score columns made on the domain `source`; by domain name, [n, m] of training and of test rows.

    Columns are not negative and rise with answerability where `sign` [m] is above 0. `direction` [m, d_model] is what
    the column times its sign reads from the residual stream, NaN where that is not known. `origin` says why each
    is a candidate: `top` or `random` for features, `residual_probe` or `sparse_probe` for whole probes.
    """

    source: str
    name: NDArray[np.str_]
    origin: NDArray[np.str_]
    sign: Floats
    cv_auc: Floats
    frequency: Floats
    direction: Floats
    train: Mapping[str, sparse.csr_array]
    unseen: Mapping[str, sparse.csr_array]
    fires: bool  # whether a zero means silence, so that density is defined

    def __len__(self) -> int:
        return len(self.name)


def choose(ranking: Ranking, rng: np.random.Generator) -> tuple[Ints, NDArray[np.str_]]:
    """Places in A's ranking of its top 100, and of 200 random features that fire as often as those; and which is which.

    The top alone would restrict the range of everything. Random ones are drawn from the rest so that their densities
    spread over the top's deciles as the top's do; where no more than 200 are left, all of them.
    """
    m = len(ranking.feature_ids)
    top, rest = np.arange(min(TOP, m)), np.arange(min(TOP, m), m)
    if len(rest) > RANDOM:
        edges = np.quantile(ranking.density[top], np.linspace(0, 1, BINS + 1))
        rest = rest[(ranking.density[rest] >= edges[0]) & (ranking.density[rest] <= edges[-1])]
        of_top, of_rest = (np.searchsorted(edges[1:-1], ranking.density[part]) for part in (top, rest))
        share = np.bincount(of_top, minlength=BINS) / np.maximum(np.bincount(of_rest, minlength=BINS), 1)
        chance = share[of_rest] / max(share[of_rest].sum(), TINY)
        rest = np.sort(rng.choice(rest, min(RANDOM, int((chance > 0).sum())), replace=False, p=chance))
    return np.r_[top, rest], np.repeat(["top", "random"], [len(top), len(rest)])


def selection_frequency(best: pd.DataFrame, train: str, n: int) -> dict[int, float]:
    """The share of A's bootstrap resamples in which a feature is among the n best, for those that ever are.

    Args:
        best: columns train, resample, rank (from 1), feature.
    """
    own = best[best["train"] == train]
    ids, counts = np.unique(own["feature"][own["rank"] <= n], return_counts=True)
    return {int(i): float(count) / own["resample"].nunique() for i, count in zip(ids, counts, strict=True)}


def features(
    a: Domain,
    domains: Sequence[Domain],
    directions: tuple[Ints, Floats],
    frequency: Mapping[int, float],
    rng: np.random.Generator,
) -> Candidates:
    """A's top features and random ones, each as the 1-sparse probe that A makes of it.

    Args:
        a: the domain that they were ranked on.
        domains: where they are looked at.
        directions: ids [k] rising, decoder directions [k, d_model].
        frequency: the share of A's bootstrap resamples that select a feature, where it is not 0.
        rng: of the random features.
    """
    places, origin = choose(a.ranking, rng)
    ids, signs = a.ranking.feature_ids[places], a.signs[places]
    return Candidates(
        a.name,
        ids.astype(str),
        origin,
        signs,
        a.ranking.auc[places],
        np.array([frequency.get(int(i), 0.0) if frequency else np.nan for i in ids]),
        signs[:, None] * _decoders(ids, directions),
        {d.name: sparse.csr_array(sparse.csr_array(d.train.X)[:, ids]) for d in domains},
        {d.name: d.unseen[:, ids] for d in domains},
        fires=True,
    )


def _decoders(ids: Ints, directions: tuple[Ints, Floats]) -> Floats:
    """[m, d_model] of the features, NaN for one that has no direction."""
    known, decoder = directions
    found = np.full((len(ids), decoder.shape[1]), np.nan)
    if len(known):
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        there = known[at] == ids
        found[there] = decoder[at[there]]
    return found


def whole_probes(
    a: Domain,
    domains: Sequence[Domain],
    streams: Mapping[str, Stream],
    directions: tuple[Ints, Floats],
) -> Candidates:
    """A's probes: those of its layer's residual stream, and the 1-sparse and N-sparse probes that A chose.

    The direction of a sparse probe is its combination of decoder directions.
    """
    dense = (streams[a.name].residual, streams[a.name].mean_difference)
    chosen = (a.sparse_1, a.sparse_n)
    train = {
        d.name: [p.score(streams[d.name].rows) for p in dense] + [p.score(d.train.X) for p in chosen] for d in domains
    }
    unseen = {
        d.name: [p.score(streams[d.name].unseen) for p in dense] + [p.score(d.unseen) for p in chosen] for d in domains
    }
    lowest = np.min([np.min(scores, axis=1) for scores in [*train.values(), *unseen.values()]], axis=0)
    every = [*dense, *chosen]
    return Candidates(
        a.name,
        np.array([p.kind for p in every]),
        np.repeat(["residual_probe", "sparse_probe"], [len(dense), len(chosen)]),
        np.ones(len(every)),
        np.array([p.cv_auc for p in every]),
        np.full(len(every), np.nan),
        np.array([p.weights for p in dense] + [_combined(p, directions) for p in chosen]),
        {name: _raised(scores, lowest) for name, scores in train.items()},
        {name: _raised(scores, lowest) for name, scores in unseen.items()},
        fires=False,
    )


def _combined(probe: Probe, directions: tuple[Ints, Floats]) -> Floats:
    assert probe.feature_ids is not None
    return np.asarray(probe.weights @ _decoders(probe.feature_ids, directions))


def _raised(scores: list[Floats], lowest: Floats) -> sparse.csr_array:
    """[n, m] of scores that are not negative; a shift changes no AUC, distance or correlation."""
    return sparse.csr_array(np.array(scores).T - lowest)
