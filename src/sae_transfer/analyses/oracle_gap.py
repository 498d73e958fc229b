"""The gap to the oracle: what the standard selection on A loses on B against the features that B's labels choose."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from sae_transfer.analyses.analysis import Analysis, by_sae
from sae_transfer.analyses.domains import ACCESS, KEYS, N_DOMAINS, Domain, corrected, distinct, domains_of, pairs
from sae_transfer.probing import sae_probes
from sae_transfer.probing.probe import Probe
from sae_transfer.results import cells
from sae_transfer.results.schema import REASON, Column, Table, estimate, integers, numbers, texts
from sae_transfer.results.sections import Picture, Section, Tables, look_up
from sae_transfer.stats.intervals import reasons
from sae_transfer.stats.logistic import Scaling
from sae_transfer.stats.p_values import SIGNIFICANT, student_p
from sae_transfer.stats.thresholds import accuracy

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

TABLE = Table(
    "oracle_gap",
    "one row a (SAE, A, B, probe, oracle); all numbers are on B's test rows",
    (
        *KEYS,
        Column("probe", "text", "sparse_1 or sparse_n, as the standard procedure trains it on A"),
        Column("feature_ids", "ids", "its features"),
        *estimate("auc", "its AUC", heading="AUC"),
        *texts(
            oracle="trained_on_target: chosen, signed and fitted on B's training rows by the same procedure; "
            "refitted_on_source: the same features, the probe fitted on A; best_of_source: the 1-sparse probe of A, "
            "sign included, that is best on B's training rows"
        ),
        ACCESS,
        Column("oracle_feature_ids", "ids", "the oracle's features"),
        Column("oracle_rank", "number", "their median place in A's ranking", heading="oracle's rank on A", digits=1),
        *integers(
            oracle_unranked="the oracle's features that fire on too few of A's rows to be ranked",
            n_ranked="features that A ranks",
        ),
        *estimate("oracle_auc", "the oracle's AUC", heading="oracle"),
        *estimate("gap", "oracle_auc - auc, paired over the resamples of B's groups", signed=True),
        *numbers(p="of no gap: Student's test with the interval's standard error"),
        Column("p_holm", "number", "p by Holm over the pairs of a probe and oracle", heading="p (Holm)", digits=3),
        *texts(
            verdict="found: the standard probe is good, auc_low >= generalization.good_auc; missed: the oracle is "
            "good, the standard probe is not (auc_high < good_auc), and p_holm < 0.05; no_good_feature: the oracle is "
            "not good, oracle_auc_high < good_auc; open: the intervals do not tell"
        ),
        *numbers(accuracy="the standard probe's, at p = 0.5", oracle_accuracy="the oracle's"),
        *integers(n_groups="groups among B's test rows"),
        N_DOMAINS,
        REASON,
    ),
)
FAMILIES = {"sparse_1": "1-sparse", "sparse_n": "N-sparse"}
VERDICTS = {"missed": "missed", "found": "found", "no_good_feature": "none exists", "open": "inconclusive"}


def oracle_gaps(domains: Sequence[Domain], good: float, sae: str = "") -> pd.DataFrame:
    """The gap for every A and B, with the columns of `TABLE`.

    Args:
        domains: all in the space of one SAE.
        good: the AUC from which on a feature counts as good.
        sae: its name.
    """
    about = {"sae": sae, "n_domains": distinct(domains)}
    table = TABLE.frame(about | row for a, b in pairs(domains) for row in _pair(a, b))
    table = corrected(table, "probe", "oracle")
    return table.assign(verdict=verdicts(table, good))


def verdicts(table: pd.DataFrame, good: float) -> Any:
    """Whether the standard procedure failed although a good feature existed; empty where an interval is missing."""
    low, high, oracle_low, oracle_high = (
        table[name].astype(np.float64) for name in ("auc_low", "auc_high", "oracle_auc_low", "oracle_auc_high")
    )
    missed = (oracle_low >= good) & (high < good) & (table["p_holm"] < SIGNIFICANT)
    said = {"": low.isna() | oracle_low.isna(), "found": low >= good, "missed": missed}
    said["no_good_feature"] = oracle_high < good
    return np.select([*said.values()], [*said], "open")


def _pair(a: Domain, b: Domain) -> Iterator[dict[str, Any]]:
    for standard, best in ((a.sparse_1, b.sparse_1), (a.sparse_n, b.sparse_n)):
        for name, oracle in _oracles(a, b, best):
            same = {"reason": f"gap: {a.name} and {b.name} hold the same rows"}
            yield {
                "train": a.name,
                "test": b.name,
                "probe": standard.kind,
                "feature_ids": standard.feature_text,
                "n_ranked": len(a.ranking.feature_ids),
                "n_groups": b.test.n_groups,
                "oracle": name,
                "target_access": "labels",
                **(same if a.same_rows(b) else _gap(a, b, standard, oracle)),
            }


def _oracles(a: Domain, b: Domain, best: Probe) -> Iterator[tuple[str, Probe]]:
    yield "trained_on_target", best
    yield "refitted_on_source", refitted(a, best)
    if best.kind == "sparse_1":
        yield "best_of_source", best_of_source(a, b)


def refitted(a: Domain, probe: Probe) -> Probe:
    """A probe on the same features, fitted on A; N-sparse probes with the penalty that A chose for its own."""
    assert probe.feature_ids is not None
    if probe.kind == "sparse_1":
        return sae_probes.sparse_1(a.train, probe.feature_ids)[0]
    scaling = cast(Scaling, a.sparse_n.scaling)
    return sae_probes.sparse_n(a.train, probe.feature_ids, a.sparse_n.C, selected=False, scaling=scaling)


def best_of_source(a: Domain, b: Domain) -> Probe:
    """The best 1-sparse probe of A by B's training labels; ties to the better rank on A."""
    best = int(np.argmax(np.round(a.judged(b), 12)))
    return sae_probes.sparse_1(a.train, a.ranking.feature_ids[[best]])[0]


def _gap(a: Domain, b: Domain, standard: Probe, oracle: Probe) -> dict[str, Any]:
    assert oracle.feature_ids is not None
    ranks, own = np.array([a.rank(feature) for feature in oracle.feature_ids]), b.tested(standard)
    row = b.area(own).columns("auc") | {
        "accuracy": accuracy(standard.probability(standard.score(b.unseen)), b.test.labels),
        "oracle_feature_ids": oracle.feature_text,
        "oracle_rank": float(np.nanmedian(ranks)) if np.isfinite(ranks).any() else np.nan,
        "oracle_unranked": int(np.isnan(ranks).sum()),
    }
    why = {"auc": silence(standard, b)}
    if np.isnan(ranks).all():
        rows = " ".join(map(str, (a.train.X[:, oracle.feature_ids] > 0).sum(axis=0)))
        why["oracle_rank"] = f"fires on {rows} of {len(a.train)} training rows of {a.name}, too few to be ranked"
    if not oracle.weights.any():
        return row | {"reason": reasons(why | {"oracle_auc": f"nothing to fit on {a.name}"})}
    best = b.tested(oracle)
    gap = b.difference(best, own)
    return {
        **row,
        **b.area(best).columns("oracle_auc"),
        **gap.columns("gap"),
        "p": student_p(gap),
        "oracle_accuracy": accuracy(oracle.probability(oracle.score(b.unseen)), b.test.labels),
        "reason": reasons(why | {"gap": gap.reason}),
    }


def silence(probe: Probe, b: Domain) -> str:
    """Why a probe's AUC is 0.5: none of its features fires on B's test rows."""
    fires = probe.feature_ids is None or b.unseen[:, probe.feature_ids].nnz
    return "" if fires else f"its features are silent on {b.name}, all rows tie"


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one SAE."""
    return oracle_gaps(domains_of(study, study.space(part)), study.params.generalization.good_auc, part)


def summarise(gaps: pd.DataFrame) -> list[str]:
    """What the table says. Means are over all SAEs and (A, B), which share domains, so no interval is claimed."""
    return [*_missed(gaps), *_same_source(gaps)]


def _missed(gaps: pd.DataFrame) -> Iterator[str]:
    for probe in FAMILIES:
        rows = gaps[(gaps["probe"] == probe) & (gaps["oracle"] == "trained_on_target") & gaps["gap"].notna()]
        if rows.empty:
            continue
        said = rows["verdict"].value_counts()
        missed, found, none, left = (int(said.get(verdict, 0)) for verdict in VERDICTS)
        yield (
            f"{FAMILIES[probe]}: on B, what A chose loses {_spread(rows['gap'])} of AUC against what B's own rows "
            f"would choose. Of {len(rows)} cases (SAE, A, B), A missed a good choice in {missed} and found one in "
            f"{found}; none existed in {none}; {left} are inconclusive."
        )


def _same_source(gaps: pd.DataFrame) -> Iterator[str]:
    rows = gaps[(gaps["oracle"] == "best_of_source") & gaps["gap"].notna()]
    if len(rows):
        ranks, missed = rows["oracle_rank"], int((rows["verdict"] == "missed").sum())
        yield (
            f"A itself ranks a good feature, and chose another, in {missed} of {len(rows)} cases. The one that is best "
            f"on B has an AUC of {_spread(rows['oracle_auc'])}, and A ranks it {ranks.median():.0f}th (median; "
            f"{ranks.min():.0f} to {ranks.max():.0f})."
        )


def _spread(values: "pd.Series[float]") -> str:
    mean, lowest, highest = (cells.number(float(value)) for value in (values.mean(), values.min(), values.max()))
    return f"{mean} on average ({lowest} to {highest})"


def by_sae_and_probe(trained: pd.DataFrame) -> pd.DataFrame:
    """Means over (A, B), and how many pairs have each verdict."""
    counted = trained.assign(**{verdict: trained["verdict"] == verdict for verdict in VERDICTS})
    parts = counted[counted["gap"].notna()].groupby(["sae", "probe"], sort=False)
    means: pd.DataFrame = parts[["auc", "oracle_auc", "gap"]].mean()
    return means.join(parts[list(VERDICTS)].sum()).reset_index()


def section(tables: Tables) -> Section:
    """The section of the report."""
    rows = tables["oracle_gap"]
    trained, said = rows[rows["oracle"] == "trained_on_target"], summarise(rows)
    counts = [Column(name, "integer", "", heading=heading) for name, heading in VERDICTS.items()]
    return Section(
        "gap",
        "Was there a better feature?",
        said[0] if said else "No pair of datasets could be compared.",
        "The oracle is chosen, signed and fitted on B's own training rows and scored on B's test rows. It sees labels "
        "of B, so it is a bound and no method. Missed: the oracle is good (AUC of at least `generalization.good_auc`), "
        "A's choice is not, and p < 0.05 after Holm's correction.",
        TABLE.name,
        said[1:],
        [Picture("oracle_gap", "AUC of the standard selection against that of the oracle, one panel an SAE.")],
        [
            look_up(
                by_sae_and_probe(trained),
                "A's choice against B's own: means over pairs, and how many pairs have each verdict",
                [*TABLE.pick("sae", "probe", "auc", "oracle_auc", "gap"), *counts],
            ),
        ],
    )


ANALYSIS = Analysis(TABLE, compute, parts=by_sae, params=("probe", "transfer", "generalization"), section=section)
