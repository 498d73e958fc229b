"""Other training samples: A's groups are drawn again, and every probe is trained anew on them.

Two ways to draw, named in the tables' column `resampling`:
  bootstrap    as many groups as A has, with replacement;
  half_sample  another seed of the data sample: half of A's groups, without replacement. To first order half samples
               spread as fresh samples of A's full size would (Buja and Stuetzle, Observations on Bagging, 2006); their
               mean AUC is that of half the rows.
Features are ranked, and scalings taken, anew on each; C and N stay those of the probe that was trained on all rows.
Test rows never change. Pure functions on arrays; `stability.py` makes tables of what comes out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sae_transfer.core.arrays import Ints
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import ParamsSection
from sae_transfer.core.randomness import rng_for
from sae_transfer.probing.kinds import KINDS
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import ranked
from sae_transfer.probing.search import Rule
from sae_transfer.stats.intervals import MIN_GROUPS

Resampling = Literal["bootstrap", "half_sample"]

STREAMS: dict[Resampling, str] = {"bootstrap": "groups", "half_sample": "sample"}  # what the draws are seeded with
PROBES = tuple(name for name, kind in KINDS.items() if kind.refit)


class BootstrapParams(ParamsSection):
    """How often the training rows are drawn again, section `bootstrap` of the params."""

    resamples: int = Field(20, ge=2)  # of A's groups, with replacement
    seeds: int = Field(20, ge=2)  # half samples of A's groups

    def count(self, resampling: Resampling) -> int:
        return self.resamples if resampling == "bootstrap" else self.seeds


@dataclass(frozen=True)
class Refit:
    """Every probe trained anew on one sample of A, None if the sample allows none; its features, best first."""

    probes: Sequence[Probe | None]
    ranking: Ints


def draw(groups: NDArray[np.str_], resampling: Resampling, rng: np.random.Generator) -> Ints:
    """The rows of one training sample, in ascending order; copies of a row share its group, so no fold parts them.

    Args:
        groups: [n], the group of each of A's training rows.
        resampling: how to draw.
        rng: what draws.
    """
    names, of_row = np.unique(groups, return_inverse=True)
    if resampling == "bootstrap":
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
    else:
        counts = (rng.permutation(len(names)) < len(names) // 2).astype(np.int64)
    rows: Ints = np.repeat(np.arange(len(groups)), counts[of_row])
    return rows


def samples(train: Rows, resampling: Resampling, seed: int, dataset: str, params: BootstrapParams) -> list[Ints]:
    """The rows of every training sample: the same in every space, so that two spaces compare sample by sample.

    Empty below 10 groups, which are too few to stand for others.
    """
    if train.n_groups < MIN_GROUPS:
        return []
    return [
        draw(
            train.groups,
            resampling,
            rng_for(seed, "training sample", dataset, len(train), STREAMS[resampling], number),
        )
        for number in range(params.count(resampling))
    ]


def refitted(fitted: Sequence[Probe], train: Rows, rows: Iterable[Ints], seed: int, params: ProbeParams) -> list[Refit]:
    """The fitted probes on each sample of A; a sample of too few groups for the folds, or of one class, allows none."""
    return [refit(fitted, train.take(chosen), seed, params) for chosen in rows]


def refit(fitted: Sequence[Probe], train: Rows, seed: int, params: ProbeParams) -> Refit:
    """The probes trained anew: each at its own C; sparse ones on the features of the same rank, or on the N best."""
    nothing = np.empty(0, dtype=np.int64)
    try:
        train.folds(params.n_folds, seed)
    except UserError:
        return Refit([None] * len(fitted), nothing)
    rules = dict.fromkeys(probe.ranking for probe in fitted if probe.feature_ids is not None)
    best = {rule: ranked(train, seed, params, cast(Rule, rule)).feature_ids for rule in rules}
    anew = []
    for probe in fitted:
        method = KINDS[probe.kind].refit
        assert method is not None
        anew.append(method(probe, train, best.get(probe.ranking, nothing), seed, params))
    return Refit(anew, best.get(params.ranking, nothing))
