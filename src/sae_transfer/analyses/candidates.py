"""Candidates: score columns that were made on A and may be used on B, features of an SAE or whole probes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.analyses.domains import Domain
from sae_transfer.artifacts.features import Directions
from sae_transfer.core.arrays import Floats, Ints, Matrix
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.search import Ranking

TOP = 100
RANDOM = 200
BINS = 10
TINY = 1e-12
FEATURES = ("top", "random")  # the origins of features


@dataclass(frozen=True)
class Stream:
    """A domain's training rows in the residual stream, its test rows [n, d_model], and the probes trained on it."""

    train: Rows
    unseen: NDArray[np.float32]
    residual: Probe
    mean_difference: Probe

    @cached_property
    def covariance(self) -> Floats:
        """[d_model, d_model]."""
        return np.atleast_2d(np.cov(self.train.X, rowvar=False, dtype=np.float64))


@dataclass(frozen=True)
class Candidates:
    """m score columns made on one domain; by domain name, [n, m] of training and of test rows.

    Columns are not negative and rise with answerability where `sign` [m] is above 0. `direction` [m, d_model] is what
    the column times its sign reads from the residual stream, NaN where that is not known. `origin` says why each
    is a candidate: `top` or `random` for features, `residual_probe` or `sparse_probe` for whole probes.
    """

    name: NDArray[np.str_]
    origin: NDArray[np.str_]
    sign: Floats
    cv_auc: Floats
    frequency: Floats
    direction: Floats
    train: Mapping[str, sparse.csr_array]
    unseen: Mapping[str, sparse.csr_array]
    fires: bool  # whether a zero means silence, so that density is defined


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


def selection_frequency(best: Sequence[Ints], n: int) -> dict[int, float]:
    """The share of A's bootstrap resamples in which a feature is among the n best, for those that ever are.

    Args:
        best: the features of each resample, best first; one that ranks none does not count.
        n: how many are chosen.
    """
    counted = [ids for ids in best if len(ids)]
    if not counted:
        return {}
    ids, counts = np.unique(np.concatenate([ids[:n] for ids in counted]), return_counts=True)
    return {int(i): float(count) / len(counted) for i, count in zip(ids, counts, strict=True)}


def features(
    a: Domain,
    domains: Sequence[Domain],
    directions: Directions,
    frequency: Mapping[int, float],
    rng: np.random.Generator,
) -> Candidates:
    """A's top features and random ones, each as the 1-sparse probe that A makes of it.

    Args:
        a: the domain that they were ranked on.
        domains: where they are looked at.
        directions: of the SAE's features, ids rising.
        frequency: the share of A's bootstrap resamples that select a feature, where it is not 0.
        rng: of the random features.
    """
    places, origin = choose(a.ranking, rng)
    ids, signs = a.ranking.feature_ids[places], a.signs[places]
    return Candidates(
        ids.astype(str),
        origin,
        signs,
        a.ranking.auc[places],
        np.array([frequency.get(int(i), 0.0) if frequency else np.nan for i in ids]),
        signs[:, None] * _decoders(ids, directions),
        {d.name: d.train.X[:, ids] for d in domains},
        {d.name: d.unseen[:, ids] for d in domains},
        fires=True,
    )


def _decoders(ids: Ints, directions: Directions) -> Floats:
    """[m, d_model] of the features, NaN for one that has no direction."""
    return pd.DataFrame(directions.decoder, directions.feature_ids).reindex(ids).to_numpy(dtype=np.float64)


def whole_probes(
    a: Domain, domains: Sequence[Domain], streams: Mapping[str, Stream], directions: Directions
) -> Candidates:
    """A's probes: those of its layer's residual stream, and the 1-sparse and N-sparse probes that A chose.

    The direction of a sparse probe is its combination of decoder directions.
    """
    dense, chosen = (streams[a.name].residual, streams[a.name].mean_difference), (a.sparse_1, a.sparse_n)
    every = [*dense, *chosen]

    def scores(stream: Matrix, X: Matrix) -> Floats:
        return np.array([p.score(stream) for p in dense] + [p.score(X) for p in chosen]).T

    train = {d.name: scores(streams[d.name].train.X, d.train.X) for d in domains}
    unseen = {d.name: scores(streams[d.name].unseen, d.unseen) for d in domains}
    lowest = np.min([part.min(axis=0) for part in [*train.values(), *unseen.values()]], axis=0)
    return Candidates(
        np.array([p.kind for p in every]),
        np.repeat(["residual_probe", "sparse_probe"], [len(dense), len(chosen)]),
        np.ones(len(every)),
        np.array([p.cv_auc for p in every]),
        np.full(len(every), np.nan),
        np.array(
            [p.weights for p in dense] + [p.weights @ _decoders(np.asarray(p.feature_ids), directions) for p in chosen]
        ),
        {name: sparse.csr_array(part - lowest) for name, part in train.items()},  # a shift changes no AUC or distance
        {name: sparse.csr_array(part - lowest) for name, part in unseen.items()},
        fires=False,
    )
