"""What the analyses know of a domain: its rows in one SAE's space, and what the standard procedure made of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer import metrics
from sae_transfer.metrics import Estimate
from sae_transfer.probes import Probe, Training
from sae_transfer.search import Ranking, column_auc, entries, fit_columns
from sae_transfer.transfer import Reference, TestSet, reference

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SAME_ROWS = 0.5  # of the smaller domain's prompts
SIGNIFICANT = 0.05
TOO_FEW = "too few resamples for so many comparisons"


@dataclass(frozen=True)
class Domain:
    """A dataset in the space of one SAE, and the probes of the standard procedure trained on it.

    `train` holds the training rows as features [n, d_sae] in CSR, `unseen` and `test` the test rows; `prompts` tell the
    same rows under two names; `ranking` orders the features as the standard procedure does; `sparse_1` and `sparse_n`
    are the probes that it chose.
    """

    name: str
    train: Training
    unseen: sparse.csr_array
    test: TestSet
    prompts: frozenset[str]
    ranking: Ranking
    sparse_1: Probe
    sparse_n: Probe

    @cached_property
    def signs(self) -> Floats:
        """The sign that the fit on this domain gives each ranked feature, in the order of the ranking [m]."""
        columns = entries(sparse.csr_array(self.train.X)[:, self.ranking.feature_ids])
        every = np.ones(len(self.train), dtype=bool)
        return np.sign(fit_columns(columns, len(self.ranking.feature_ids), self.train.labels, every)[0])

    def rank(self, feature: int) -> float:
        """The place of a feature in the ranking, from 1; NaN where it fires on too few training rows."""
        place = np.flatnonzero(self.ranking.feature_ids == feature)
        return float(place[0] + 1) if len(place) else np.nan

    def firing(self, features: Ints) -> Ints:
        """On how many training rows each feature [m] fires."""
        return np.asarray((sparse.csr_array(self.train.X)[:, features] > 0).sum(axis=0), dtype=np.int64)

    def judged(self, other: "Domain") -> Floats:
        """AUC of each ranked feature [m], with this domain's sign, on the other domain's training rows."""
        columns = sparse.csr_array(other.train.X)[:, self.ranking.feature_ids]
        return column_auc(columns, other.train.labels, self.signs)

    def tested(self, probe: Probe) -> Reference:
        """A probe's AUC on this domain's test rows, and on each bootstrap resample of them."""
        return reference(probe.score(self.unseen), self.test)


def same_rows(a: Domain, b: Domain) -> bool:
    """Whether two names stand for the same dataset: they share more than half of the smaller one's prompts."""
    return a is b or len(a.prompts & b.prompts) > SAME_ROWS * min(len(a.prompts), len(b.prompts))


def pairs(domains: Sequence[Domain]) -> Iterator[tuple[Domain, Domain]]:
    """Every A and every other B, the same rows under two names included."""
    return ((a, b) for a in domains for b in domains if a is not b)


def others(domains: Sequence[Domain], *left_out: Domain) -> list[Domain]:
    """The domains that share no rows with those left out, whatever their names."""
    return [domain for domain in domains if not any(same_rows(domain, out) for out in left_out)]


def distinct(domains: Sequence[Domain]) -> int:
    """How many domains there are when one under two names counts once."""
    return sum(not any(same_rows(domain, before) for before in domains[:i]) for i, domain in enumerate(domains))


def area(found: Reference, test: TestSet, prefix: str = "") -> dict[str, float]:
    """Columns `auc`, `auc_low` and `auc_high`, after a prefix."""
    return columns(f"{prefix}auc", metrics.interval(found.auc, found.resampled, test.effective_groups))


def difference(better: Reference, worse: Reference, test: TestSet) -> tuple[Estimate, float]:
    """The paired difference of two AUC on the same test rows with its interval, and the p-value of none."""
    found = metrics.difference_interval(better.auc, worse.auc, better.resampled, worse.resampled, test.effective_groups)
    return found, np.nan if np.isnan(found.low) else metrics.bootstrap_p(better.resampled - worse.resampled)


def columns(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def resamples(domains: Sequence[Domain]) -> int:
    """How many bootstrap resamples of the test rows there are."""
    return min((len(domain.test.weights) for domain in domains), default=0)


def corrected(table: pd.DataFrame, by: Sequence[str], n_resamples: int) -> pd.DataFrame:
    """The table with `p_holm`, its column `p` corrected within each group of `by`.

    Where the resamples are too few for any p to pass, a table's `reason` says so.
    """
    groups = table.groupby([*by])["p"]
    table = table.assign(p_holm=groups.transform(metrics.holm))
    blind = groups.transform("count") * 2 / (n_resamples + 1) > SIGNIFICANT
    table.loc[blind & table["p"].notna(), "reason"] += f"; p_holm: {TOO_FEW}"
    return table


def average(found: Sequence[Reference]) -> Reference:
    """The mean AUC of several probes, such as those of several draws, on the rows and on each resample."""
    return Reference(
        float(np.mean([one.auc for one in found])), np.asarray(np.mean([one.resampled for one in found], axis=0))
    )
