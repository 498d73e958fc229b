"""Selection policies: which of A's features to use on B, and what each choice costs against the oracle."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sae_transfer.generalization.candidates import FEATURES, selection_frequency
from sae_transfer.generalization.domains import (
    SIGNIFICANT,
    Domain,
    area,
    average,
    columns,
    corrected,
    difference,
    distinct,
    others,
    pairs,
    resamples,
    same_rows,
)
from sae_transfer.generalization.oracle import refitted, silence, text
from sae_transfer.generalization.statistics import Few
from sae_transfer.probes import Probe
from sae_transfer.search import column_auc
from sae_transfer.transfer import Reference

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Choice = Callable[[int], Floats]  # the number of features that are wanted -> a score for each ranked feature of A

IN_DOMAIN, ORACLE = "in_domain", "oracle"

COLUMNS = (
    "train test probe policy uses_target feature_ids n_features n_draws auc auc_low auc_high auc_draw_sd regret "
    "regret_low regret_high gain gain_low gain_high p p_holm n_groups n_domains reason"
).split()
"""One row a (A, B, probe, policy). All numbers are on B's test rows.

A policy chooses among the features that A ranks; ties go to the better rank on A. The probe (sparse_1, or sparse_n
with the N and the penalty that A chose) is then fitted on A alone, sign included.

policy       in_domain: the paper's, A's own ranking
             stability: most often among the best (or the N best) of A's bootstrap resamples
             worst_case: the highest lowest AUC over A and every other labelled source except B
             agreement: its scores correlate most, on B's rows, with the residual probes of the sources (no label of B)
             predictor: the highest AUC that the combined predictor, fitted without B, predicts
             few_<n>: the highest AUC on n labelled rows of B; all numbers are means over the draws
             best_of_source: the highest AUC on all of B's training rows
             oracle: chosen, signed and fitted on B's training rows; the same for every A
uses_target  what the choice sees of B's training rows: no, rows (without labels), labels
regret       AUC(oracle) - AUC(policy); gain: AUC(policy) - AUC(in_domain); both paired over the resamples of B's groups
p, p_holm    of no gain; corrected by Holm over the pairs of the same probe and policy
auc_draw_sd  deviation over the draws; feature_ids are empty where draws differ
"""


@dataclass(frozen=True)
class Knowledge:
    """What policies choose by, beside the domains: tables of A's bootstrap resamples and of its candidates."""

    resamples: pd.DataFrame  # columns train, resample, rank, feature
    candidates: pd.DataFrame  # what `statistics` knows, with columns `predicted` and `agreement_sources`
    few: Mapping[str, Few]  # by domain


class Tested(NamedTuple):
    """A probe and its AUC on B's test rows."""

    probe: Probe
    area: Reference


def policies(domains: Sequence[Domain], known: Knowledge) -> pd.DataFrame:
    """What every policy gives for every A and B, with columns `COLUMNS`; all domains in the space of one SAE."""
    rows = [row for a, b in pairs(domains) for row in _pair(a, b, domains, known)]
    return corrected(pd.DataFrame(rows, columns=COLUMNS), ["probe", "policy"], resamples(domains))


def _pair(a: Domain, b: Domain, domains: Sequence[Domain], known: Knowledge) -> Iterator[dict[str, Any]]:
    choices = _choices(a, b, domains, known)
    for standard, oracle in ((a.sparse_1, b.sparse_1), (a.sparse_n, b.sparse_n)):
        about = {"train": a.name, "test": b.name, "probe": standard.kind, "n_groups": b.test.n_groups}
        about["n_domains"] = distinct(domains)
        if same_rows(a, b):
            reason = {"reason": f"{a.name} and {b.name} hold the same rows"}
            yield from (about | {"policy": name, "uses_target": sees} | reason for name, sees, _ in choices)
            continue
        tested: dict[str, Tested] = {}
        fixed = {name: Tested(probe, b.tested(probe)) for name, probe in ((IN_DOMAIN, standard), (ORACLE, oracle))}
        for name, sees, found in choices:
            row = about | {"policy": name, "uses_target": sees, "n_draws": len(found)}
            chosen = [fixed[name]] if name in fixed else [_tested(a, b, standard, choice, tested) for choice in found]
            if chosen:
                yield row | {"n_draws": len(chosen)} | _judged(b, name, chosen, fixed)
            else:
                yield row | {"reason": f"auc: nothing to choose by; {name} needs {needs(name)}"}


def _choices(a: Domain, b: Domain, domains: Sequence[Domain], known: Knowledge) -> list[tuple[str, str, list[Choice]]]:
    """(policy, what it sees of B, its choice or one choice a draw); none where it cannot be made, or needs none."""
    few = [(f"few_{n}", "labels", _few(a, b, rows)) for n, rows in known.few[b.name].rows.items()]
    return [
        (IN_DOMAIN, "no", []),
        ("stability", "no", _stability(a, known.resamples)),
        ("worst_case", "no", _worst_case(a, b, domains)),
        ("agreement", "rows", _by_column(a, b, known.candidates, "agreement_sources")),
        ("predictor", "rows", _by_column(a, b, known.candidates, "predicted")),
        *few,
        ("best_of_source", "labels", [_always(a.judged(b))]),
        (ORACLE, "labels", []),
    ]


def needs(policy: str) -> str:
    """What a policy cannot do without."""
    if policy.startswith("few_"):
        return "as many training rows of B"
    own = {"stability": "A's bootstrap resamples", "agreement": "a candidate that fires on B"}
    return own.get(policy, "another labelled source")


def _always(score: Floats) -> Choice:
    return lambda n: score


def _stability(a: Domain, resamples: pd.DataFrame) -> list[Choice]:
    if not (resamples["train"] == a.name).any():
        return []

    def score(n: int) -> Floats:
        often = selection_frequency(resamples, a.name, n)
        return np.array([often.get(int(feature), 0.0) for feature in a.ranking.feature_ids])

    return [score]


def _worst_case(a: Domain, b: Domain, domains: Sequence[Domain]) -> list[Choice]:
    sources = others(domains, a, b)
    return [_always(np.min([a.ranking.auc, *(a.judged(c) for c in sources)], axis=0))] if sources else []


def _by_column(a: Domain, b: Domain, candidates: pd.DataFrame, column: str) -> list[Choice]:
    own = (candidates["train"] == a.name) & (candidates["test"] == b.name) & candidates["origin"].isin(FEATURES)
    values = candidates.loc[own, ["candidate", column]].dropna()
    if values.empty:
        return []
    score = dict(zip(values["candidate"].astype(int), values[column].astype(float), strict=True))
    return [_always(np.array([score.get(int(feature), -np.inf) for feature in a.ranking.feature_ids]))]


def _few(a: Domain, b: Domain, draws: Ints) -> list[Choice]:
    X = b.train.X[:, a.ranking.feature_ids]
    return [_always(column_auc(X[rows], b.train.labels[rows], a.signs)) for rows in draws]


def _tested(a: Domain, b: Domain, standard: Probe, choice: Choice, known: dict[str, Tested]) -> Tested:
    """The probe of the same kind as A's standard one on the features of a choice, fitted on A; each set once."""
    n = len(standard.weights)
    chosen = a.ranking.feature_ids[np.argsort(-np.round(choice(n), 12), kind="stable")[:n]]
    key = " ".join(map(str, chosen))
    if key not in known:
        probe = refitted(a, replace(standard, feature_ids=chosen))
        known[key] = Tested(probe, b.tested(probe))
    return known[key]


def _judged(b: Domain, name: str, chosen: list[Tested], fixed: Mapping[str, Tested]) -> dict[str, Any]:
    own, probe = average([one.area for one in chosen]), chosen[0].probe
    same = len({text(one.probe) for one in chosen}) == 1
    row: dict[str, Any] = {
        "feature_ids": text(probe) if same else "",
        "n_features": len(probe.weights),
        "auc_draw_sd": float(np.std([one.area.auc for one in chosen], ddof=1)) if len(chosen) > 1 else np.nan,
    } | area(own, b.test)
    regret, _ = difference(fixed[ORACLE].area, own, b.test)
    gain, p = difference(own, fixed[IN_DOMAIN].area, b.test)
    reasons = [silence(probe, b) if same else "", regret.reason and f"regret: {regret.reason}"]
    if name == ORACLE:
        reasons.append("regret: the oracle itself")
    else:
        row |= columns("regret", regret)
    if name == IN_DOMAIN:
        reasons.append("gain: what the others are set against")
    else:
        row |= columns("gain", gain) | {"p": p}
    return row | {"reason": "; ".join(filter(None, reasons))}


def mean_regret(table: pd.DataFrame, by: Sequence[str] = ("probe", "policy", "uses_target")) -> pd.DataFrame:
    """Regret, gain and AUC of each policy as the mean over all (A, B), with the lowest and the highest pair.

    The range is no interval: pairs share domains. `better` and `worse` count the pairs whose gain is above or below 0
    by its interval, and at 5% after Holm's correction.
    """
    there = table[table["auc"].notna()]
    sure = there["p_holm"] < SIGNIFICANT
    there = there.assign(better=sure & (there["gain_low"] > 0), worse=sure & (there["gain_high"] < 0))
    return (
        there.groupby([*by], sort=False)
        .agg(
            auc=("auc", "mean"),
            regret=("regret", "mean"),
            regret_min=("regret", "min"),
            regret_max=("regret", "max"),
            gain=("gain", "mean"),
            gain_min=("gain", "min"),
            gain_max=("gain", "max"),
            better=("better", "sum"),
            worse=("worse", "sum"),
            n_pairs=("auc", "size"),
            n_domains=("n_domains", "max"),
        )
        .reset_index()
    )
