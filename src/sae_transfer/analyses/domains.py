"""What the analyses know of a domain: its rows in one SAE's space, and what the standard procedure made of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from sae_transfer.core.arrays import Floats
from sae_transfer.core.space import Space
from sae_transfer.data.overlap import contents
from sae_transfer.probing.evaluations import BootstrappedAUC, Evaluation, bootstrapped_auc
from sae_transfer.probing.kinds import selected
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import ranked
from sae_transfer.probing.search import Ranking, column_auc, entries, fit_columns
from sae_transfer.results.schema import Column
from sae_transfer.stats import p_values
from sae_transfer.stats.intervals import Estimate

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

SAME_ROWS = 0.5  # of the prompts
KEYS = (
    Column("sae", "text", "the SAE", heading="SAE"),
    Column("train", "text", "A, the dataset that features are chosen on", heading="A"),
    Column("test", "text", "B, the dataset that they are used on", heading="B"),
)
ACCESS = Column("target_access", "text", "what is seen of B's training rows: no, rows, labels", heading="sees of B")
N_DOMAINS = Column("n_domains", "integer", "domains behind the number, the same data counted once", heading="domains")


@dataclass(frozen=True)
class Domain:
    """A dataset in the space of one SAE, and the probes of the standard procedure trained on it.

    `train` holds the training rows as features [n, d_sae] in CSR, `unseen` and `test` the test rows; `names` are all
    names of the study that stand for the same rows, its own included; `ranking` orders the features as the standard
    procedure does; `sparse_1` and `sparse_n` are the probes that it chose.
    """

    name: str
    names: frozenset[str]
    train: Rows
    unseen: sparse.csr_array
    test: Evaluation
    ranking: Ranking
    sparse_1: Probe
    sparse_n: Probe

    @cached_property
    def signs(self) -> Floats:
        """The sign that the fit on this domain gives each ranked feature, in the order of the ranking [m]."""
        columns = entries(self.train.X[:, self.ranking.feature_ids])
        every = np.ones(len(self.train), dtype=bool)
        return np.sign(fit_columns(columns, len(self.ranking.feature_ids), self.train.labels, every)[0])

    def same_rows(self, other: "Domain") -> bool:
        """Whether the two are one dataset under two names."""
        return other.name in self.names

    def rank(self, feature: int) -> float:
        """The place of a feature in the ranking, from 1; NaN where it fires on too few training rows."""
        place = np.flatnonzero(self.ranking.feature_ids == feature)
        return float(place[0] + 1) if len(place) else np.nan

    def judged(self, other: "Domain") -> Floats:
        """AUC of each ranked feature [m], with this domain's sign, on the other domain's training rows."""
        columns = other.train.X[:, self.ranking.feature_ids]
        return column_auc(columns, other.train.labels, self.signs)

    def tested(self, probe: Probe) -> BootstrappedAUC:
        """A probe's AUC on this domain's test rows, and on each bootstrap resample of them."""
        return bootstrapped_auc(probe.score(self.unseen), self.test)

    def area(self, found: BootstrappedAUC) -> Estimate:
        """An AUC on this domain's test rows with its interval."""
        return found.interval(self.test.effective_groups)

    def difference(self, better: BootstrappedAUC, worse: BootstrappedAUC) -> Estimate:
        """The paired difference of two AUC on this domain's test rows with its interval."""
        return better.minus(worse, self.test.effective_groups)


def domains_of(study: "Study", sae: Space) -> list[Domain]:
    """Every dataset of the study under its own template, with the probes of the standard procedure at full size."""
    return [_domain(study, sae, name, names) for name, names in same_data(study).items()]


def _domain(study: "Study", sae: Space, name: str, names: frozenset[str]) -> Domain:
    train, probes = study.rows(sae, name), study.full_probes(sae, name)
    return Domain(
        name,
        names,
        train,
        study.rows(sae, name, "unseen").X,
        study.evaluation(name, "unseen"),
        ranked(train, study.seed, study.params.probe.at(sae.name, name)),
        *(selected(probes, kind) for kind in ("sparse_1", "sparse_n")),
    )


def same_data(study: "Study") -> dict[str, frozenset[str]]:
    """By dataset, all names for the same rows: they share more than half of the smaller one's own prompts."""
    prompts = {name: set(contents(study.prompts(name).iloc[study.at(name, None)])) for name in study.datasets}

    def same(a: str, b: str) -> bool:
        return len(prompts[a] & prompts[b]) > SAME_ROWS * min(len(prompts[a]), len(prompts[b]))

    return {a: frozenset(b for b in prompts if a == b or same(a, b)) for a in prompts}


def pairs(domains: Sequence[Domain]) -> Iterator[tuple[Domain, Domain]]:
    """Every A and every other B, the same rows under two names included."""
    return ((a, b) for a in domains for b in domains if a is not b)


def others(domains: Sequence[Domain], *left_out: Domain) -> list[Domain]:
    """The domains that share no rows with those left out, whatever their names."""
    return [domain for domain in domains if not any(out.same_rows(domain) for out in left_out)]


def distinct(domains: Sequence[Domain]) -> int:
    """How many domains there are when one under two names counts once."""
    return len({min(domain.names) for domain in domains})


def corrected(table: pd.DataFrame, *by: str) -> pd.DataFrame:
    """The table with `p_holm`, its column `p` corrected within each group of the columns `by`."""
    return table.assign(p_holm=table.groupby([*by])["p"].transform(p_values.holm))
