"""Selection policies: which of A's features to use on B, and what each choice costs against the oracle."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sae_transfer.analyses.analysis import Analysis, by_sae
from sae_transfer.analyses.candidate_statistics import Few, few_labels
from sae_transfer.analyses.candidates import FEATURES, selection_frequency
from sae_transfer.analyses.domains import (
    ACCESS,
    KEYS,
    N_DOMAINS,
    Domain,
    corrected,
    distinct,
    domains_of,
    others,
    pairs,
)
from sae_transfer.analyses.oracle_gap import FAMILIES, refitted, silence
from sae_transfer.core.arrays import Floats, Ints
from sae_transfer.probing.evaluations import BootstrappedAUC, mean_auc
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.search import column_auc
from sae_transfer.results.schema import REASON, Column, Table, estimate, integers, numbers, texts
from sae_transfer.results.sections import Picture, Section, Tables, look_up
from sae_transfer.results.words import words
from sae_transfer.stats.intervals import Estimate, estimates
from sae_transfer.stats.p_values import SIGNIFICANT, student_p

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

IN_DOMAIN, ORACLE = "in_domain", "oracle"
NEEDS = {
    "stability": "A's bootstrap resamples",
    "agreement": "a candidate that fires on B",
    **dict.fromkeys(("worst_case", "predictor"), "another labelled source"),
}

TABLE = Table(
    "policies",
    "one row a (SAE, A, B, probe, policy); all numbers are on B's test rows. A policy chooses among the features that "
    "A ranks, ties to the better rank; the probe is then fitted on A alone, sign included",
    (
        *KEYS,
        *texts(
            probe="sparse_1, or sparse_n with the N and the penalty that A chose",
            policy="in_domain: the paper's, A's own ranking; stability: most often among the best (or the N best) of "
            "A's bootstrap resamples; worst_case: the highest lowest AUC over A and every other labelled source except "
            "B; agreement: its scores correlate most, on B's rows, with the residual probes of the sources; predictor: "
            "the highest AUC that the combined predictor, fitted without B, predicts; few_<n>: the highest AUC on n "
            "labelled rows of B, means over the draws; best_of_source: the highest AUC on all of B's training rows; "
            "oracle: chosen, signed and fitted on B's training rows, the same for every A",
        ),
        ACCESS,
        Column("feature_ids", "ids", "the features chosen; empty where draws differ"),
        *integers(n_features="how many", n_draws="of the labelled rows"),
        *estimate("auc", "AUC of the probe on them", heading="AUC"),
        *numbers(auc_draw_sd="standard deviation of the AUC over the draws"),
        *estimate("regret", "AUC(oracle) - AUC(policy), paired over B's resamples", "", "mean regret (range)", 3),
        *estimate("gain", "AUC(policy) - AUC(in_domain), paired over B's resamples", signed=True),
        *numbers(
            p="of no gain: Student's test with the interval's standard error",
            p_holm="p by Holm over the pairs of a probe and policy",
        ),
        *integers(n_groups="groups among B's test rows"),
        N_DOMAINS,
        REASON,
    ),
)
COUNTS = (
    Column("better", "integer", "", heading="better than the paper's"),
    Column("worse", "integer", ""),
    Column("n_pairs", "integer", "", heading="pairs"),
)


@dataclass(frozen=True)
class Knowledge:
    """What policies choose by, beside the domains. `best` and `few` are by domain.

    `best` are the features of each of A's bootstrap resamples, best first; `candidates` is what `statistics` knows of
    A's candidates, with columns `predicted` and `agreement_sources`; `few` are draws of B's rows.
    """

    best: Mapping[str, Sequence[Ints]]
    candidates: pd.DataFrame
    few: Mapping[str, Few]


class Tested(NamedTuple):
    """A probe and its AUC on B's test rows."""

    probe: Probe
    area: BootstrappedAUC


def policies(domains: Sequence[Domain], known: Knowledge, sae: str = "") -> pd.DataFrame:
    """What every policy gives for every A and B, with the columns of `TABLE`; all domains in the space of one SAE."""
    about = {"sae": sae, "n_domains": distinct(domains)}
    table = TABLE.frame(about | row for a, b in pairs(domains) for row in _pair(a, b, domains, known))
    return corrected(table, "probe", "policy")


def _pair(a: Domain, b: Domain, domains: Sequence[Domain], known: Knowledge) -> Iterator[dict[str, Any]]:
    for standard, oracle in ((a.sparse_1, b.sparse_1), (a.sparse_n, b.sparse_n)):
        tested: dict[str, Tested] = {}
        fixed = {name: Tested(probe, b.tested(probe)) for name, probe in ((IN_DOMAIN, standard), (ORACLE, oracle))}
        for name, sees, scores in _choices(a, b, domains, known, len(standard.weights)):
            row = {"train": a.name, "test": b.name, "probe": standard.kind, "n_groups": b.test.n_groups}
            row |= {"policy": name, "target_access": sees}
            chosen = [fixed[name]] if name in fixed else [_tested(a, b, standard, score, tested) for score in scores]
            if a.same_rows(b):
                yield row | {"reason": f"auc: {a.name} and {b.name} hold the same rows"}
            elif chosen:
                yield row | {"n_draws": len(chosen)} | _judged(b, name, chosen, fixed)
            else:
                needed = NEEDS.get(name, "as many training rows of B")
                yield row | {"n_draws": 0, "reason": f"auc: nothing to choose by; {name} needs {needed}"}


def _choices(
    a: Domain, b: Domain, domains: Sequence[Domain], known: Knowledge, n: int
) -> list[tuple[str, str, list[Floats]]]:
    """(policy, what it sees of B, the scores of A's ranked features by which it chooses n).

    Of several draws there is one score each; none where the choice cannot be made, or needs no score.
    """
    often, sources = selection_frequency(known.best[a.name], n), others(domains, a, b)
    X, labels = b.train.X[:, a.ranking.feature_ids], b.train.labels
    few = {f"few_{size}": draws for size, draws in known.few[b.name].items()}
    return [
        (IN_DOMAIN, "no", []),
        ("stability", "no", _of_ranked(a, often, 0.0)),
        ("worst_case", "no", [np.min([a.ranking.auc, *map(a.judged, sources)], axis=0)] if sources else []),
        ("agreement", "rows", _of_ranked(a, _column(a, b, known.candidates, "agreement_sources"), -np.inf)),
        ("predictor", "rows", _of_ranked(a, _column(a, b, known.candidates, "predicted"), -np.inf)),
        *((name, "labels", [column_auc(X[at], labels[at], a.signs) for at in draws]) for name, draws in few.items()),
        ("best_of_source", "labels", [a.judged(b)]),
        (ORACLE, "labels", []),
    ]


def _of_ranked(a: Domain, score: Mapping[int, float], missing: float) -> list[Floats]:
    return [np.array([score.get(int(feature), missing) for feature in a.ranking.feature_ids])] if score else []


def _column(a: Domain, b: Domain, candidates: pd.DataFrame, column: str) -> dict[int, float]:
    own = (candidates["train"] == a.name) & (candidates["test"] == b.name) & candidates["origin"].isin(FEATURES)
    values = candidates.loc[own, ["candidate", column]].dropna()
    return dict(zip(values["candidate"].astype(int), values[column].astype(float), strict=True))


def _tested(a: Domain, b: Domain, standard: Probe, score: Floats, known: dict[str, Tested]) -> Tested:
    """The probe of the same kind as A's standard one on the features of a choice, fitted on A; each set once."""
    best = np.argsort(-np.round(score, 12), kind="stable")[: len(standard.weights)]
    chosen = replace(standard, feature_ids=a.ranking.feature_ids[best])
    if chosen.feature_text not in known:
        probe = refitted(a, chosen)
        known[chosen.feature_text] = Tested(probe, b.tested(probe))
    return known[chosen.feature_text]


def _judged(b: Domain, name: str, chosen: list[Tested], fixed: Mapping[str, Tested]) -> dict[str, Any]:
    own, probe = mean_auc([one.area for one in chosen]), chosen[0].probe
    same = len({one.probe.feature_text for one in chosen}) == 1
    regret, gain = b.difference(fixed[ORACLE].area, own), b.difference(own, fixed[IN_DOMAIN].area)
    gain = replace(gain, reason="")  # too few groups for one are too few for the other, which says so
    if name == ORACLE:
        regret = Estimate(reason="the oracle itself")
    if name == IN_DOMAIN:
        gain = Estimate(reason="what the others are set against")
    area = replace(b.area(own), reason=silence(probe, b) if same else "")
    return {
        "feature_ids": probe.feature_text if same else "",
        "n_features": len(probe.weights),
        "auc_draw_sd": float(np.std([one.area.auc for one in chosen], ddof=1)) if len(chosen) > 1 else np.nan,
        **estimates({"auc": area, "regret": regret, "gain": gain}),
        "p": student_p(gain),
    }


def mean_regret(table: pd.DataFrame, *by: str) -> pd.DataFrame:
    """Regret, gain and AUC of each policy as the mean over all (A, B); of the regret also the lowest and highest pair.

    The range is no interval: pairs share domains. `better` and `worse` count the pairs whose gain is above or below 0
    by its interval, and at 5% after Holm's correction.
    """
    there = table[table["auc"].notna()]
    sure = there["p_holm"] < SIGNIFICANT
    there = there.assign(better=sure & (there["gain_low"] > 0), worse=sure & (there["gain_high"] < 0))
    return (
        there.groupby([*by, "probe", "policy", "target_access"], sort=False)
        .agg(
            regret=("regret", "mean"),
            regret_low=("regret", "min"),
            regret_high=("regret", "max"),
            gain=("gain", "mean"),
            better=("better", "sum"),
            worse=("worse", "sum"),
            n_pairs=("auc", "size"),
            n_domains=("n_domains", "max"),
        )
        .reset_index()
    )


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one SAE."""
    sae = study.space(part)
    found = domains_of(study, sae)
    known = Knowledge(
        {domain.name: study.resamples(sae, domain.name).best for domain in found},
        study.analysis("candidates", part),
        {domain.name: few_labels(domain, study.params.generalization, study.seed) for domain in found},
    )
    return policies(found, known, part)


def claim(means: pd.DataFrame) -> str:
    """The best policy that needs no label of B, beside the paper's."""
    means = means[(means["probe"] == "sparse_1") & means["regret"].notna()].set_index("policy")
    free = means[(means["target_access"] != "labels") & (means.index != IN_DOMAIN)]
    if not len(free) or IN_DOMAIN not in means.index:
        return "No policy could be set against the paper's choice."
    best = str(free["regret"].idxmin())
    return (
        f"Without a label of B, the best policy is \u201c{words('policy', best)}\u201d: it loses "
        f"{free['regret'][best]:.2f} of AUC against B's own choice, where the paper's choice loses "
        f"{means['regret'][IN_DOMAIN]:.2f}."
    )


def section(tables: Tables) -> Section:
    """The section of the report."""
    rows = tables["policies"][tables["policies"]["policy"] != ORACLE]
    means = mean_regret(rows)
    shown = [*TABLE.pick("policy", "target_access", "regret"), *COUNTS]
    captions = {probe: f"{name}: regret of each policy over all SAEs and pairs" for probe, name in FAMILIES.items()}
    by_sae = [*TABLE.pick("sae", "probe", "policy", "target_access", "regret"), *COUNTS]
    return Section(
        "policies",
        "How should features be chosen?",
        claim(means),
        "Each policy chooses among the features that A ranks; the probe is then fitted on A. Regret is the AUC that "
        "B's own choice has and the policy has not. Better and worse count the pairs that differ from the paper's "
        "choice (best on A) by their interval and with p < 0.05 after Holm's correction. Ranges are over pairs, which "
        "share datasets; they are no intervals. Some policies know the labels of all sources and not A's alone: the "
        "worst source, the agreement with the sources' probes, and the predicted AUC.",
        TABLE.name,
        (),
        [Picture("policies", "Regret of every policy: a point a pair, and the mean, one panel an SAE.")],
        [
            *(look_up(means[means["probe"] == probe], caption, shown) for probe, caption in captions.items()),
            look_up(mean_regret(rows, "sae"), "Regret of every policy, by SAE", by_sae),
        ],
    )


ANALYSIS = Analysis(
    TABLE,
    compute,
    parts=by_sae,
    after=("candidates",),
    params=("probe", "transfer", "generalization"),
    section=section,
)
