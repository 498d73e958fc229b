"""What a sweep maximises: the cross-validated AUC of an N-sparse probe on A's training rows alone. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.core.errors import UserError
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import ranked, sparse_n
from sae_transfer.probing.search import MIN_ROWS, Rule
from sae_transfer.stats.logistic import fit_path
from sae_transfer.stats.roc import auc
from sae_transfer.tuning.search_space import Choice

Columns = NDArray[np.float64]


class Score(NamedTuple):
    """Cross-validated AUC, and log loss, which tells apart trials that AUC does not."""

    auc: float
    log_loss: float


@dataclass(frozen=True)
class Fold:
    """A fold with its features chosen on the other rows alone, best first, once for each ranking rule.

    `X` [n, k] holds them on the other rows, whose labels are `labels` [n], and `X_held_out` [m, k] on the fold.
    """

    labels: NDArray[np.int_]
    X: dict[Rule, Columns]
    held_out: NDArray[np.int_]
    X_held_out: dict[Rule, Columns]

    @property
    def n_features(self) -> int:
        return min(int(columns.shape[1]) for columns in self.X.values())


def folds(train: Rows, seed: int, params: ProbeParams, rules: Sequence[Rule], n_max: int) -> list[Fold]:
    """The folds that every trial of a sweep is judged on: those of `probes.sparse_probes`.

    Args:
        train: A's training rows.
        seed: the study's.
        params: how many folds.
        rules: the ranking rules that trials may choose.
        n_max: the most features that a trial may use.

    Raises:
        UserError: in a fold no feature fires on enough rows.
    """
    found = []
    for rest, held_out in train.folded(params.n_folds, seed):
        best = {rule: _ranked(rest, seed, params, rule)[:n_max] for rule in rules}
        fold = Fold(
            rest.labels,
            {rule: _columns(rest.X, ids) for rule, ids in best.items()},
            held_out.labels,
            {rule: _columns(held_out.X, ids) for rule, ids in best.items()},
        )
        if not fold.n_features:
            raise UserError(f"no feature fires on {MIN_ROWS} of {len(rest)} training rows; is this SAE the model's?")
        found.append(fold)
    return found


def _ranked(train: Rows, seed: int, params: ProbeParams, rule: Rule) -> NDArray[np.int64]:
    return ranked(train, seed, params.model_copy(update={"ranking": rule})).feature_ids


def _columns(X: Any, feature_ids: NDArray[np.int64]) -> Columns:
    return np.asarray(sparse.csr_array(X)[:, feature_ids].toarray(), dtype=np.float64)


def cross_validated(folds: Sequence[Fold], choice: Choice) -> Score:
    """The probe that `choice` describes, trained on the other rows of each fold and scored on the fold: the means."""
    areas, losses = [], []
    for fold in folds:
        X = fold.X[choice.ranking][:, : choice.N]
        weights, bias = fit_path(X, fold.labels, [choice.C], choice.scaling)[0]
        logit = fold.X_held_out[choice.ranking][:, : choice.N] @ weights + bias
        areas.append(auc(logit, fold.held_out))
        losses.append(np.mean(np.logaddexp(0, logit) - fold.held_out * logit))
    return Score(float(np.round(np.mean(areas), 12)), float(np.round(np.mean(losses), 9)))


def trained(train: Rows, seed: int, params: ProbeParams, choice: Choice) -> Probe:
    """The probe that `choice` describes, trained on all of A's training rows."""
    best = _ranked(train, seed, params, choice.ranking)[: choice.N]
    return sparse_n(train, best, choice.C, selected=True, ranking=choice.ranking, scaling=choice.scaling)
