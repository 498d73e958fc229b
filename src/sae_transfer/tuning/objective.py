"""What a sweep optimises: the cross-validated log loss, or AUC, of an N-sparse probe on A's training rows alone.

It is what the fit stage chooses C and N by. Pure functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.core.errors import UserError
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import ranked, sparse_n
from sae_transfer.probing.search import MIN_ROWS, Rule
from sae_transfer.stats.logistic import Scaling, fit_path
from sae_transfer.stats.roc import auc
from sae_transfer.tuning.search_space import Choice

Columns = NDArray[np.float64]
Objective = Literal["log_loss", "auc"]
NAMES: dict[Objective, str] = {"log_loss": "cross-validated log loss", "auc": "cross-validated AUC"}


class Score(NamedTuple):
    """Cross-validated AUC and log loss."""

    auc: float
    log_loss: float

    def of(self, objective: Objective) -> float:
        return self.auc if objective == "auc" else self.log_loss


def objective_of(params: ProbeParams) -> Objective:
    """What the fit stage chooses by."""
    found: Objective = getattr(params, "selection", "auc")
    return found


def sign(objective: Objective) -> int:
    """1 where less is better, -1 where more is."""
    return -1 if objective == "auc" else 1


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
    return _scores(folds, choice.N, [choice.C], choice.ranking, choice.scaling)[0]


def untuned(folds: Sequence[Fold], params: ProbeParams, objective: Objective) -> tuple[Choice, Score]:
    """The best of the grid of the section `probe`, and what it reached. Ties: the smaller N, then the smaller C."""
    n_features, Cs = min(fold.n_features for fold in folds), sorted(params.C_grid)
    sizes = [n for n in sorted(params.N) if n <= n_features] or [n_features]
    tried = [
        (Choice(C, n, params.ranking, params.scaling), score)
        for n in sizes
        for C, score in zip(Cs, _scores(folds, n, Cs, params.ranking, params.scaling), strict=True)
    ]
    return min(tried, key=lambda each: sign(objective) * each[1].of(objective))


def _scores(folds: Sequence[Fold], n: int, Cs: Sequence[float], rule: Rule, scaling: Scaling) -> list[Score]:
    """One score for each C."""
    areas, losses = [], []
    for fold in folds:
        unseen, y = fold.X_held_out[rule][:, :n], fold.held_out
        logits = [unseen @ weights + bias for weights, bias in fit_path(fold.X[rule][:, :n], fold.labels, Cs, scaling)]
        areas.append([auc(logit, y) for logit in logits])
        losses.append([np.mean(np.logaddexp(0, logit) - y * logit) for logit in logits])
    means = zip(np.mean(areas, axis=0), np.mean(losses, axis=0), strict=True)
    return [Score(float(np.round(area, 12)), float(np.round(loss, 9))) for area, loss in means]


def trained(train: Rows, seed: int, params: ProbeParams, choice: Choice) -> Probe:
    """The probe that `choice` describes, trained on all of A's training rows."""
    best = _ranked(train, seed, params, choice.ranking)[: choice.N]
    return sparse_n(train, best, choice.C, selected=True, ranking=choice.ranking, scaling=choice.scaling)
