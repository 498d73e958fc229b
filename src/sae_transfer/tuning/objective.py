"""What a sweep optimises: the cross-validated log loss, or AUC, of an N-sparse probe on A's training rows alone.

It is what the fit stage chooses C and N by. Pure functions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.core.errors import UserError
from sae_transfer.probing.cross_validation import DIGITS, PathScores, choose
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams, SelectionRule
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import ranked, sparse_n
from sae_transfer.probing.search import MIN_ROWS, Rule
from sae_transfer.stats.logistic import Scaling, fit_path, log_loss
from sae_transfer.stats.roc import auc
from sae_transfer.tuning.search_space import Choice

Columns = NDArray[np.float64]
NAMES: dict[SelectionRule, str] = {"log_loss": "cross-validated log loss", "auc": "cross-validated AUC"}


class Score(NamedTuple):
    """Cross-validated AUC and log loss."""

    auc: float
    log_loss: float

    def of(self, objective: SelectionRule) -> float:
        return self.auc if objective == "auc" else self.log_loss


def sign(objective: SelectionRule) -> int:
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
    return _means([_score_path(fold, [choice.N], [choice.C], choice.ranking, choice.scaling) for fold in folds])[0][0]


def untuned(folds: Sequence[Fold], params: ProbeParams) -> tuple[Choice, Score]:
    """What the fit stage chooses of the grid of the section `probe`, and what that reached."""
    n_features, Cs = min(fold.n_features for fold in folds), sorted(params.C_grid)
    sizes = [n for n in sorted(params.N) if n <= n_features] or [n_features]
    scores = [_score_path(fold, sizes, Cs, params.ranking, params.scaling) for fold in folds]
    best = choose(scores, Cs, params.selection)
    found = Choice(best.C, sizes[best.size], params.ranking, params.scaling)
    return found, _means(scores)[best.size][Cs.index(best.C)]


def _score_path(fold: Fold, sizes: Sequence[int], Cs: Sequence[float], rule: Rule, scaling: Scaling) -> PathScores:
    """Every size and C, trained on the other rows of a fold and scored on the fold."""
    X, unseen, y = fold.X[rule], fold.X_held_out[rule], fold.held_out
    paths = [fit_path(X[:, :n], fold.labels, Cs, scaling) for n in sizes]
    logits = [[unseen[:, :n] @ weights + bias for weights, bias in path] for n, path in zip(sizes, paths, strict=True)]
    areas = [[auc(of, y) for of in path] for path in logits]
    return PathScores(np.array(areas), np.array([[log_loss(of, y) for of in path] for path in logits]))


def _means(folds: Sequence[PathScores]) -> list[list[Score]]:
    """By size and C, the means over the folds."""
    areas: Any = np.round(np.mean([fold.auc for fold in folds], axis=0), DIGITS["auc"])
    losses: Any = np.round(np.mean([fold.log_loss for fold in folds], axis=0), DIGITS["log_loss"])
    return [[Score(*map(float, each)) for each in zip(*of, strict=True)] for of in zip(areas, losses, strict=True)]


def trained(train: Rows, seed: int, params: ProbeParams, choice: Choice) -> Probe:
    """The probe that `choice` describes, trained on all of A's training rows."""
    best = _ranked(train, seed, params, choice.ranking)[: choice.N]
    return sparse_n(train, best, choice.C, selected=True, ranking=choice.ranking, scaling=choice.scaling)
