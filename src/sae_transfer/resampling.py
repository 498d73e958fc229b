"""What another training sample would have given: A's groups drawn again, and every probe trained anew on them.

Two ways to draw, named in the tables' column `varied`:
  groups   the bootstrap: as many groups as A has, with replacement;
  sample   another seed of the data sample: half of A's groups, without replacement. To first order half samples spread
           as fresh samples of A's full size would (Buja and Stuetzle, Observations on Bagging, 2006); their mean AUC is
           that of half the rows.
Features are ranked, and scalings taken, anew on each; C and N stay those of the probe that was trained on all rows.
Test rows never change. Pure functions on arrays; `stability.py` makes tables of what comes out.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sae_transfer.config import Params
from sae_transfer.logistic import standardised
from sae_transfer.metrics import MIN_GROUPS
from sae_transfer.probes import Probe, ProbeParams, Training, mean_difference, ranked, sparse_1, sparse_n
from sae_transfer.records import UserError, generator
from sae_transfer.splits import folds

Ints = NDArray[np.int64]
Varied = Literal["groups", "sample"]

PROBES = ("residual", "mean_difference", "sparse_1", "sparse_n")


class BootstrapParams(Params):
    """How often the training rows are drawn again, section `bootstrap` of the params."""

    resamples: int = Field(20, ge=2)  # of A's groups, with replacement
    seeds: int = Field(20, ge=2)  # half samples of A's groups

    def count(self, varied: Varied) -> int:
        return self.resamples if varied == "groups" else self.seeds


@dataclass(frozen=True)
class Refit:
    """Every probe trained anew on one sample of A, None where the sample allows none, and its features, best first."""

    probes: Sequence[Probe | None]
    ranking: Ints


Method = Callable[[Sequence[Probe], Training, int, ProbeParams], Refit]


def draw(groups: NDArray[np.str_], varied: Varied, rng: np.random.Generator) -> Ints:
    """The rows of one training sample, in ascending order; copies of a row share its group, so no fold parts them.

    Args:
        groups: [n], the group of each of A's training rows.
        varied: how to draw.
    """
    names, of_row = np.unique(groups, return_inverse=True)
    if varied == "groups":
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
    else:
        counts = (rng.permutation(len(names)) < len(names) // 2).astype(np.int64)
    rows: Ints = np.repeat(np.arange(len(groups)), counts[of_row])
    return rows


def samples(train: Training, varied: Varied, seed: int, dataset: str, params: BootstrapParams) -> list[Ints]:
    """The rows of every training sample: the same in every space, so that two spaces compare sample by sample.

    Empty below 10 groups, which are too few to stand for others.
    """
    if len(np.unique(train.groups)) < MIN_GROUPS:
        return []
    return [
        draw(train.groups, varied, generator(seed, "training sample", dataset, len(train), varied, number))
        for number in range(params.count(varied))
    ]


def refit_layer(fitted: Sequence[Probe], train: Training, seed: int, params: ProbeParams) -> Refit:
    """The probes of a residual stream space, trained anew at their own C."""
    anew = []
    for probe in fitted:
        if probe.kind == "residual":
            weights, bias = standardised(train.X, train.labels, [probe.C])[0]
            anew.append(replace(probe, weights=weights, bias=bias))
        else:
            anew += mean_difference(train, seed, params)
    return Refit(anew, np.empty(0, dtype=np.int64))


def refit_sae(fitted: Sequence[Probe], train: Training, seed: int, params: ProbeParams) -> Refit:
    """The probes of an SAE space, trained anew: on the features of the same rank, or on the N best, of this sample."""
    best = ranked(train, seed, params).feature_ids
    ones = sparse_1(train, best[: max((probe.rank for probe in fitted), default=0)], params.ranking)
    anew: list[Probe | None] = []
    for probe in fitted:
        if len(best) < max(probe.rank, len(probe.weights)):
            anew.append(None)
        elif probe.kind == "sparse_1":
            anew.append(ones[probe.rank - 1])
        else:
            anew.append(
                sparse_n(
                    train,
                    best[: len(probe.weights)],
                    probe.C,
                    selected=probe.selected,
                    ranking=params.ranking,
                    scaling=params.scaling,
                )
            )
    return Refit(anew, best)


def refitted(
    method: Method, fitted: Sequence[Probe], train: Training, rows: Iterable[Ints], seed: int, params: ProbeParams
) -> list[Refit]:
    """The fitted probes on each sample of A; a sample of too few groups for the folds, or of one class, allows none."""
    none = Refit([None] * len(fitted), np.empty(0, dtype=np.int64))
    drawn = (train.rows(chosen) for chosen in rows)
    return [method(fitted, one, seed, params) if _foldable(one, seed, params) else none for one in drawn]


def _foldable(train: Training, seed: int, params: ProbeParams) -> bool:
    try:
        folds(train.labels, list(train.groups), params.n_folds, seed)
    except UserError:
        return False
    return True
