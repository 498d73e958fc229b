"""Probes on SAE features: the 1-sparse and the N-sparse probe of arXiv 2502.19964."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.core.arrays import Ints, Matrix
from sae_transfer.core.errors import UserError
from sae_transfer.core.randomness import rng_for
from sae_transfer.probing.cross_validation import PathScores, choose, score_path
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.search import MIN_ROWS, Ranking, Rule, entries, fit_columns, rank_features
from sae_transfer.stats.logistic import Scaling, fit_path


def sparse_probes(train: Rows, seed: int, params: ProbeParams) -> list[Probe]:
    """The 1-sparse probes of the top K features, and the N-sparse probe for every N of the grid.

    1-sparse: scale and bias of one feature on all training rows, C = 1. N-sparse: L2 logistic regression on the N best
    features; the C of each N, and which N is selected, by cross-validation with the features ranked anew in every
    fold. Source: arXiv 2502.19964.

    Raises:
        UserError: no feature fires on enough training rows.
    """
    return sparse_by_both_rules(train, seed, params)[:-1]


def sparse_by_both_rules(train: Rows, seed: int, params: ProbeParams) -> list[Probe]:
    """`sparse_probes`, and as the last one the N-sparse probe that the other rule of selection chooses."""
    ranking = ranked(train, seed, params)
    if not len(ranking.feature_ids):
        raise UserError(f"no feature fires on {MIN_ROWS} of {len(train)} training rows; is this SAE the model's?")
    rule, best = params.rule_n, ranking.feature_ids
    best_n = best if rule == params.ranking else ranked(train, seed, params, rule).feature_ids
    grid, sizes = sorted(params.C_grid), [n for n in sorted(params.N) if n <= len(best)] or [len(best)]
    folded = train.folded(params.n_folds, seed)
    folds = [_scores(rest, test, seed, params, sizes, grid) for rest, test in folded]
    choice, other = (choose(folds, grid, rule) for rule in (params.selection, params.other_selection))

    def train_n(n: int, C: float, *, selected: bool) -> Probe:
        return sparse_n(train, best_n[:n], C, selected=selected, ranking=rule, scaling=params.scaling)

    many = [train_n(n, choice.Cs[i], selected=i == choice.size) for i, n in enumerate(sizes)]
    many[choice.size] = replace(many[choice.size], **choice.about)
    rival = replace(train_n(sizes[other.size], other.C, selected=True), kind="other_rule", **other.about)
    ones = sparse_1(train, best[: params.top_k], params.ranking)
    return [*(replace(one, feature_cv_auc=float(ranking.auc[i])) for i, one in enumerate(ones)), *many, rival]


def ranked(train: Rows, seed: int, params: ProbeParams, rule: Rule | None = None) -> Ranking:
    """The features of `train` ranked by a rule, by default that of the 1-sparse probe; folds are within `train`."""
    X = sparse.csr_array(train.X)
    return rank_features(X, train.labels, train.folds(params.n_folds, seed), rule or params.ranking)


def sparse_1(train: Rows, feature_ids: Ints, ranking: Rule = "auc") -> list[Probe]:
    """One probe for each of the features, which come from the best to the worst by the rule that ranked them."""
    columns = entries(sparse.csr_array(train.X)[:, feature_ids])
    scale, bias = fit_columns(columns, len(feature_ids), train.labels, np.ones(len(train), dtype=bool))
    return [
        Probe(
            "sparse_1",
            "sparse_1",
            scale[[i]],
            float(bias[i]),
            feature_ids[[i]],
            C=1.0,
            rank=i + 1,
            selected=i == 0,
            scaling="rms",
            ranking=ranking,
            width=train.X.shape[1],
        )
        for i in range(len(feature_ids))
    ]


def sparse_n(
    train: Rows,
    feature_ids: Ints,
    C: float,
    *,
    selected: bool,
    ranking: Rule = "auc",
    scaling: Scaling = "rms",
) -> Probe:
    """L2 logistic regression on the features; `ranking` is the rule that chose them."""
    weights, bias = fit_path(_dense(train.X, feature_ids), train.labels, [C], scaling)[0]
    return Probe(
        "sparse_n",
        "sparse_n",
        weights,
        bias,
        feature_ids,
        C,
        selected=selected,
        scaling=scaling,
        ranking=ranking,
        width=train.X.shape[1],
    )


def _scores(rest: Rows, test: Rows, seed: int, params: ProbeParams, sizes: list[int], grid: list[float]) -> PathScores:
    """Every N and C scored on `test`, features ranked on `rest` alone."""
    best = ranked(rest, seed, params, params.rule_n).feature_ids[: max(sizes)]
    fitting, unseen = (replace(rows, X=_dense(rows.X, best)) for rows in (rest, test))
    return score_path(fitting, unseen, sizes, grid, params.scaling)


def refit_sparse_1(probe: Probe, train: Rows, best: Ints, _seed: int, _params: ProbeParams) -> Probe | None:
    """The probe of the feature that has this rank among another sample's features; None where it has fewer."""
    if len(best) < probe.rank:
        return None
    (anew,) = sparse_1(train, best[[probe.rank - 1]])
    return replace(probe, weights=anew.weights, bias=anew.bias, feature_ids=anew.feature_ids)


def refit_sparse_n(probe: Probe, train: Rows, best: Ints, _seed: int, params: ProbeParams) -> Probe | None:
    """The probe on another sample's N best features, at its own C; None where it has fewer."""
    n = len(probe.weights)
    if len(best) < n:
        return None
    anew = sparse_n(train, best[:n], probe.C, selected=probe.selected, scaling=params.scaling)
    return replace(probe, weights=anew.weights, bias=anew.bias, feature_ids=anew.feature_ids)


def shuffled_sparse(train: Rows, seed: int, params: ProbeParams, many: Probe, place: str = "") -> list[Probe]:
    """The negative control, selection included: probes of 1 and of N features, ranked and trained on permuted labels.

    `many` is the N-sparse probe whose N and C are taken over; `place` names space and dataset, so that each has
    shuffles of its own.
    """
    probes = []
    for repeat in range(params.repeats):
        labels = rng_for(seed, "shuffled labels", place, repeat).permutation(train.labels)
        shuffled = replace(train, labels=labels)
        best = ranked(shuffled, seed, params).feature_ids
        best_n = best if params.rule_n == params.ranking else ranked(shuffled, seed, params, params.rule_n).feature_ids
        rules: dict[str, Any] = {"ranking": params.rule_n, "scaling": params.scaling}
        pair = [
            sparse_1(shuffled, best[:1], params.ranking)[0],
            sparse_n(shuffled, best_n[: many.n_features], many.C, selected=True, **rules),
        ]
        probes += [replace(p, kind="shuffled_labels", repeat=repeat, n_train=len(train)) for p in pair]
    return sorted(probes, key=lambda probe: probe.family)


def _dense(X: Matrix, feature_ids: Ints) -> NDArray[Any]:
    """[n, k], the columns of those features."""
    chosen: Any = X[:, feature_ids]
    return chosen if isinstance(chosen, np.ndarray) else np.asarray(chosen.toarray())
