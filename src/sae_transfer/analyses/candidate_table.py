"""What is known of every candidate of each A for each B: the table that predictors and policies read."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import pandas as pd

from sae_transfer.analyses import candidates
from sae_transfer.analyses.analysis import Analysis, by_sae
from sae_transfer.analyses.candidate_statistics import STATISTICS, few_labels, separability, statistics, with_consensus
from sae_transfer.analyses.candidates import Candidates, Stream
from sae_transfer.analyses.domains import KEYS, Domain, domains_of, pairs
from sae_transfer.analyses.predictors import SameData, predicted_auc
from sae_transfer.core.randomness import rng_for
from sae_transfer.core.space import Space, residual_stream
from sae_transfer.probing.kinds import selected
from sae_transfer.results.schema import REASON, Column, Table, texts

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

TABLE = Table(
    "candidates",
    "one row a (A, B, candidate); more columns, one a domain or a draw, follow: auc_on.<C>, its AUC on the training "
    "rows of C; agreement_with.<C>, the correlation of its scores with those of C's residual probe over B's training "
    "rows; few_<n>.<draw>, its AUC on n labelled training rows of B",
    (
        *KEYS[1:],
        *texts(
            candidate="the feature, or the kind of a whole probe",
            origin="top or random, among A's features; residual_probe or sparse_probe, a whole probe of A",
        ),
        *(Column(name, "number", about) for name, (_, about) in STATISTICS.items()),
        Column("predicted", "number", "what the combined predictor, fitted without B, predicts for its AUC on B"),
        Column("training_auc", "number", "its AUC on B's training rows, which predictors are fitted to"),
        Column("auc", "number", "its AUC on B's test rows: the outcome"),
        REASON,
    ),
)


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The candidates in the space of one SAE."""
    sae, chosen, k = study.space(part), study.params.generalization, study.params.probe.n_folds
    found = domains_of(study, sae)
    streams = {domain.name: _stream(study, sae, domain.name) for domain in found}
    few = {domain.name: few_labels(domain, chosen, study.seed) for domain in found}
    made = {domain.name: _made(study, sae, domain, found, streams) for domain in found}
    apart = {
        frozenset((a.name, b.name)): separability(streams[a.name].train, streams[b.name].train, k, study.seed)
        for a, b in combinations(found, 2)
    }
    tables = [
        statistics(one, a, b, found, streams, few[b.name], apart[frozenset((a.name, b.name))])
        for a, b in pairs(found)
        if not a.same_rows(b)
        for one in made[a.name]
    ]
    return joined(tables, {domain.name: domain.names for domain in found})


def joined(tables: Sequence[pd.DataFrame], same_data: SameData) -> pd.DataFrame:
    """What is known of all pairs, with the columns of `TABLE` first; a single domain has no pairs and no rows."""
    if not tables:
        return TABLE.frame([])
    table = with_consensus(pd.concat(tables, ignore_index=True))
    table = table.assign(predicted=predicted_auc(table, same_data))
    return table[[*TABLE.names, *table.columns.difference(TABLE.names, sort=False)]]


def _made(
    study: "Study", sae: Space, a: Domain, found: Sequence[Domain], streams: Mapping[str, Stream]
) -> tuple[Candidates, Candidates]:
    directions = study.directions(sae)
    frequency = candidates.selection_frequency(study.resamples(sae, a.name).best, study.params.probe.top_k)
    rng = rng_for(study.seed, "candidates", sae.name, a.name)
    return (
        candidates.features(a, found, directions, frequency, rng),
        candidates.whole_probes(a, found, streams, directions),
    )


def _stream(study: "Study", sae: Space, name: str) -> Stream:
    layer = residual_stream(int(sae.layer or 0))
    probes = study.full_probes(layer, name)
    unseen = study.rows(layer, name, "unseen").X
    return Stream(
        study.rows(layer, name), unseen, *(selected(probes, kind) for kind in ("residual", "mean_difference"))
    )


ANALYSIS = Analysis(TABLE, compute, parts=by_sae, params=("probe", "transfer", "generalization"), published=False)
