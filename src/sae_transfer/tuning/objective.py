"""What a sweep maximises: the cross-validated AUC of an N-sparse probe on A's training rows alone. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt, model_validator
from scipy import sparse

from sae_transfer.config import Params
from sae_transfer.metrics import auc
from sae_transfer.probes import SCALED, Probe, ProbeParams, Scaling, Training, ranked, sparse_n
from sae_transfer.records import UserError
from sae_transfer.search import MIN_ROWS, Rule

Columns = NDArray[np.float64]


class SweepParams(Params):
    """Section `sweep` of the params: where to look for better probes, how long, and where to remember it.

    `mode` auc: the best AUC with at most `n_max` features; pareto: AUC up and N down, the whole front. `C` is a range,
    searched on a log scale. `grid`: first try every C x N of the section `probe`. `storage`: a folder for journals, or
    any URL that Optuna takes.
    """

    mode: Literal["auc", "pareto"] = "auc"
    n_max: PositiveInt = 64
    trials: PositiveInt = 100
    C: tuple[PositiveFloat, PositiveFloat] = (1e-4, 100.0)
    ranking: tuple[Rule, ...] = ("auc", "mean_difference")
    scaling: tuple[Scaling, ...] = ("rms", "standard", "none")
    grid: bool = False
    storage: str = "studies"

    @model_validator(mode="after")
    def _ranges(self) -> "SweepParams":
        if self.C[0] > self.C[1]:
            raise ValueError(f"C runs from the smaller to the larger, not {self.C[0]:g} to {self.C[1]:g}")
        if not self.ranking or not self.scaling:
            raise ValueError("ranking and scaling each need a choice at least")
        return self


@dataclass(frozen=True)
class Choice:
    """One point of the search space: what a trial tries."""

    C: float
    N: int
    ranking: Rule
    scaling: Scaling


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


def folds(train: Training, seed: int, params: ProbeParams, rules: Sequence[Rule], n_max: int) -> list[Fold]:
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


def _ranked(train: Training, seed: int, params: ProbeParams, rule: Rule) -> NDArray[np.int64]:
    return ranked(train, seed, params.model_copy(update={"ranking": rule})).feature_ids


def _columns(X: Any, feature_ids: NDArray[np.int64]) -> Columns:
    return np.asarray(sparse.csr_array(X)[:, feature_ids].toarray(), dtype=np.float64)


def cross_validated(folds: Sequence[Fold], choice: Choice) -> Score:
    """The probe that `choice` describes, trained on the other rows of each fold and scored on the fold: the means."""
    areas, losses = [], []
    for fold in folds:
        X = fold.X[choice.ranking][:, : choice.N]
        weights, bias = SCALED[choice.scaling](X, fold.labels, [choice.C])[0]
        logit = fold.X_held_out[choice.ranking][:, : choice.N] @ weights + bias
        areas.append(auc(logit, fold.held_out))
        losses.append(np.mean(np.logaddexp(0, logit) - fold.held_out * logit))
    return Score(float(np.round(np.mean(areas), 12)), float(np.round(np.mean(losses), 9)))


def trained(train: Training, seed: int, params: ProbeParams, choice: Choice) -> Probe:
    """The probe that `choice` describes, trained on all of A's training rows."""
    best = _ranked(train, seed, params, choice.ranking)[: choice.N]
    return sparse_n(train, best, choice.C, selected=True, ranking=choice.ranking, scaling=choice.scaling)
