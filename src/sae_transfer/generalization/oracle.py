"""The gap to the oracle: what the standard selection on A loses on B against the features that B's labels choose."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from sae_transfer import probes
from sae_transfer.generalization.domains import (
    SIGNIFICANT,
    Domain,
    area,
    columns,
    corrected,
    difference,
    distinct,
    pairs,
    resamples,
    same_rows,
)
from sae_transfer.metrics import accuracy
from sae_transfer.probes import Probe, Scaling
from sae_transfer.search import Rule

COLUMNS = (
    "train test probe feature_ids auc auc_low auc_high oracle uses_target oracle_feature_ids oracle_rank "
    "oracle_unranked n_ranked oracle_auc oracle_auc_low oracle_auc_high gap gap_low gap_high p p_holm verdict "
    "accuracy oracle_accuracy n_groups n_domains reason"
).split()
"""One row a (A, B, probe, oracle). All numbers are on B's test rows.

probe               sparse_1 or sparse_n, as the standard procedure trains it on A: feature_ids, auc, accuracy
oracle              trained_on_target: chosen, signed and fitted on B's training rows by the same procedure
                    refitted_on_source: the same features, the probe fitted on A
                    best_of_source: the 1-sparse probe of A, sign included, that is best on B's training rows
oracle_rank         the place of the oracle's feature in A's ranking, from 1; of several the median
oracle_unranked     how many of the oracle's features fire on too few of A's rows to be ranked; n_ranked: how many are
gap                 oracle_auc - auc, paired over the resamples of B's groups; p of no gap; p_holm corrected by Holm
                    over the pairs of the same probe and oracle
verdict             found: the standard probe is good, auc_low >= good
                    missed: the oracle is good, the standard probe is not (auc_high < good), and p_holm < 0.05
                    no_good_feature: the oracle is not good, oracle_auc_high < good
                    open: the intervals do not tell
"""


def oracle_gaps(domains: Sequence[Domain], good: float) -> pd.DataFrame:
    """The gap for every A and B, with columns `COLUMNS`.

    Args:
        domains: all in the space of one SAE.
        good: the AUC from which on a feature counts as good.
    """
    rows = [row for a, b in pairs(domains) for row in _pair(a, b)]
    table = pd.DataFrame(rows, columns=COLUMNS).assign(n_domains=distinct(domains))
    table = corrected(table, ["probe", "oracle"], resamples(domains))
    table["verdict"] = [verdict(row, good) for row in table.to_dict("records")]
    return table


def verdict(row: dict[Any, Any], good: float) -> str:
    """Whether the standard procedure failed although a good feature existed; empty where an interval is missing."""
    if np.isnan([row["auc_low"], row["oracle_auc_low"]]).any():
        return ""
    if row["auc_low"] >= good:
        return "found"
    if row["oracle_auc_low"] >= good and row["auc_high"] < good and row["p_holm"] < SIGNIFICANT:
        return "missed"
    return "no_good_feature" if row["oracle_auc_high"] < good else "open"


def _pair(a: Domain, b: Domain) -> Iterator[dict[str, Any]]:
    for standard in (a.sparse_1, a.sparse_n):
        about: dict[str, Any] = {"train": a.name, "test": b.name, "probe": standard.kind, "feature_ids": text(standard)}
        about |= {"n_ranked": len(a.ranking.feature_ids), "n_groups": b.test.n_groups, "uses_target": "labels"}
        for name, probe in _oracles(a, b, standard.kind):
            if same_rows(a, b):
                yield about | {"oracle": name, "reason": f"{a.name} and {b.name} hold the same rows"}
            else:
                yield about | {"oracle": name} | _gap(a, b, standard, probe)


def _oracles(a: Domain, b: Domain, kind: str) -> Iterator[tuple[str, Probe]]:
    best = b.sparse_1 if kind == "sparse_1" else b.sparse_n
    yield "trained_on_target", best
    yield "refitted_on_source", refitted(a, best)
    if kind == "sparse_1":
        yield "best_of_source", best_of_source(a, b)


def refitted(a: Domain, probe: Probe) -> Probe:
    """A probe on the same features, fitted on A; N-sparse probes with the penalty that A chose for its own."""
    assert probe.feature_ids is not None
    if probe.kind == "sparse_1":
        return probes.sparse_1(a.train, probe.feature_ids)[0]
    own = a.sparse_n
    ranking, scaling = cast(Rule, own.ranking), cast(Scaling, own.scaling)
    return probes.sparse_n(a.train, probe.feature_ids, own.C, selected=False, ranking=ranking, scaling=scaling)


def best_of_source(a: Domain, b: Domain) -> Probe:
    """The best 1-sparse probe of A by B's training labels; ties to the better rank on A."""
    best = int(np.argmax(np.round(a.judged(b), 12)))
    return probes.sparse_1(a.train, a.ranking.feature_ids[[best]])[0]


def _gap(a: Domain, b: Domain, standard: Probe, oracle: Probe) -> dict[str, Any]:
    assert oracle.feature_ids is not None
    ranks = np.array([a.rank(feature) for feature in oracle.feature_ids])
    own = b.tested(standard)
    row = area(own, b.test) | {
        "accuracy": accuracy(standard.probability(standard.score(b.unseen)), b.test.labels),
        "oracle_feature_ids": text(oracle),
        "oracle_rank": float(np.nanmedian(ranks)) if np.isfinite(ranks).any() else np.nan,
        "oracle_unranked": int(np.isnan(ranks).sum()),
    }
    reasons = [silence(standard, b), *_unranked(a, oracle, ranks)]
    if not oracle.weights.any():
        return row | {"reason": "; ".join([*filter(None, reasons), f"oracle: nothing to fit on {a.name}"])}
    best = b.tested(oracle)
    gap, p = difference(best, own, b.test)
    return {
        **row,
        **area(best, b.test, "oracle_"),
        **columns("gap", gap),
        "p": p,
        "oracle_accuracy": accuracy(oracle.probability(oracle.score(b.unseen)), b.test.labels),
        "reason": "; ".join(filter(None, [*reasons, gap.reason])),
    }


def silence(probe: Probe, b: Domain) -> str:
    """Why a probe's AUC is 0.5: none of its features fires on B's test rows."""
    fires = probe.feature_ids is None or b.unseen[:, probe.feature_ids].nnz
    return "" if fires else f"auc: its features are silent on {b.name}, all rows tie"


def _unranked(a: Domain, oracle: Probe, ranks: Any) -> Iterator[str]:
    assert oracle.feature_ids is not None
    if np.isnan(ranks).all():
        rows = " ".join(str(n) for n in a.firing(oracle.feature_ids))
        yield f"oracle_rank: fires on {rows} of {len(a.train)} training rows of {a.name}, too few to be ranked"


def text(probe: Probe) -> str:
    return "" if probe.feature_ids is None else " ".join(str(feature) for feature in probe.feature_ids)
