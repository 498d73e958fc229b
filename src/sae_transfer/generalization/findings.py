"""What the tables say, in plain sentences with their numbers and the number of domains that each rests on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer.generalization.domains import TOO_FEW
from sae_transfer.generalization.policies import mean_regret
from sae_transfer.generalization.predictors import COMBINED, KINDS

FAMILIES = {"sparse_1": "1-sparse", "sparse_n": "N-sparse"}
SEES = {"no": "no row of B", "rows": "B's rows without labels", "labels": "labels of B"}
PREDICTS, HARDLY = 0.5, 0.2  # of Spearman's correlation within (A, B), mean over SAEs and pairs
MARK = 0.98


# Means are over all SAEs and (A, B), which share domains: ranges are of pairs, and no interval is claimed for a mean.


def of_oracle_gap(gaps: pd.DataFrame) -> list[str]:
    """Sentences about results/oracle_gap.csv."""
    return [*_oracle(gaps), *_blind(gaps)]


def of_predictors(predictors: pd.DataFrame) -> list[str]:
    """Sentences about results/predictors.csv."""
    return [*_predictors(predictors), *_combined(predictors), *_bound(predictors)]


def of_policies(policies: pd.DataFrame) -> list[str]:
    """Sentences about results/policies.csv."""
    return [*_policies(policies), *_blind(policies)]


def _blind(table: pd.DataFrame) -> Iterator[str]:
    if table["reason"].fillna("").str.contains(TOO_FEW).any():
        yield f"Nothing can pass Holm's correction here: {TOO_FEW}; raise transfer.resamples."


def _oracle(gaps: pd.DataFrame) -> Iterator[str]:
    for probe, name in FAMILIES.items():
        rows = gaps[(gaps["probe"] == probe) & (gaps["oracle"] == "trained_on_target") & gaps["gap"].notna()]
        if rows.empty:
            continue
        said = rows["verdict"].value_counts()
        yield (
            f"{name}: A's selection loses {_spread(rows['gap'])} of AUC on B against B's own best features. In "
            f"{said.get('missed', 0)} of {len(rows)} cases (SAE, A, B) it is surely not good although a good feature "
            f"exists (intervals, Holm-corrected), in {said.get('found', 0)} it is good, in "
            f"{said.get('no_good_feature', 0)} no feature is{_undecided(said)}; {_domains(rows)}."
        )
    same = gaps[(gaps["oracle"] == "best_of_source") & gaps["gap"].notna()]
    if len(same):
        ranks = same["oracle_rank"]
        yield (
            f"Among A's own 1-sparse probes the best on B stands at rank {ranks.median():.0f} of A (median; "
            f"{ranks.min():.0f} to {ranks.max():.0f}) and reaches an AUC of {_spread(same['oracle_auc'])}, where A's "
            f"choice reaches {_spread(same['auc'])}; {_domains(same)}."
        )


def _undecided(said: "pd.Series[int]") -> str:
    left = int(said.sum()) - sum(int(said.get(name, 0)) for name in ("missed", "found", "no_good_feature"))
    return f", and {left} are undecided" if left else ""


def _predictors(table: pd.DataFrame) -> Iterator[str]:
    within = table[(table["scope"] == "within") & (table["candidates"] == "features") & table["spearman"].notna()]
    for sees, words in SEES.items():
        rows = within[(within["uses_target"] == sees) & (within["predictor"] != COMBINED)]
        mean = rows.groupby("predictor", sort=False)["spearman"].mean().sort_values(ascending=False)
        groups = {
            "predict the AUC on B within (A, B)": mean[mean >= PREDICTS],
            "predict it weakly": mean[(mean < PREDICTS) & (mean >= HARDLY)],
            "hardly predict it": mean[(mean < HARDLY) & (mean > -HARDLY)],
            "predict it the other way round": mean[mean <= -HARDLY],
        }
        said = [f"{_listed(found)} {verb}" for verb, found in groups.items() if len(found)]
        if said:
            yield f"Seeing {words} (mean Spearman over {_cases(rows)}): {'; '.join(said)}."
    silent = table[(table["scope"] == "within") & table["spearman"].isna()]["predictor"].unique()
    if len(silent):
        yield f"Within (A, B) nothing can be said of {', '.join(silent)}: no pair has a value."


def _listed(found: "pd.Series[float]") -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in found.items())


def _cases(rows: pd.DataFrame) -> str:
    return f"{_saes(rows)}, {rows['n_pairs'].max():.0f} pairs, {rows['n_domains'].max():.0f} domains"


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _saes(rows: pd.DataFrame) -> str:
    n = rows["sae"].nunique()
    return f"{n} SAE{'s' * (n != 1)}"


def _combined(table: pd.DataFrame) -> Iterator[str]:
    held = table[(table["scope"] == "held_out") & (table["role"] == "target")]
    for kind in KINDS:
        rows = held[(held["candidates"] == kind) & held["rmse"].notna()]
        own = rows[rows["predictor"] == COMBINED]
        if own.empty:
            yield f"For {_words(kind)} no combined predictor could be judged: leaving a domain out leaves no pair."
            continue
        by_domain = own.groupby("held_out", sort=False)[["r2", "rmse"]].mean()
        points = [f"{name} {_share(r2)} ({rmse:.2f})" for name, r2, rmse in by_domain.itertuples()]
        error = rows[rows["uses_target"] != "labels"].groupby("predictor", sort=False)["rmse"].mean()
        best = str(error.drop(COMBINED).idxmin())
        yield (
            f"All label-free statistics combined, on a domain left out, explain these shares (R2) of the AUC of "
            f"{_words(kind)}, with this error: {', '.join(points)} (means over {_saes(own)}; {len(points)} domains, no "
            f"interval). The best single one, {best}, errs by {error[best]:.2f} on average, the combination by "
            f"{error[COMBINED]:.2f}."
        )


def _share(r2: float) -> str:
    return f"{r2:.2f}" if r2 >= 0 else "below 0"


def _bound(table: pd.DataFrame) -> Iterator[str]:
    across = table[(table["scope"] == "across") & table["r2"].notna()]
    for kind in KINDS:
        rows = across[across["candidates"] == kind]
        r2 = rows.groupby("predictor", sort=False)["r2"].mean()
        free = rows[rows["uses_target"] != "labels"]
        free = free[free["predictor"] != COMBINED]
        if not {"mahalanobis_target", "agreement_target"} <= set(r2.index) or free.empty:
            continue
        best = str(r2[free["predictor"].unique()].idxmax())
        yield (
            f"The bound, with B's labels: over all {_words(kind)} and pairs the Mahalanobis cosine to B's own probe "
            f"has R2 {r2['mahalanobis_target']:.2f}, the correlation of scores with that probe "
            f"{r2['agreement_target']:.2f} (published mark for residual probes {MARK}); without labels the best, "
            f"{best}, has {r2[best]:.2f} ({_cases(rows)})."
        )


def _policies(table: pd.DataFrame) -> Iterator[str]:
    means = mean_regret(table)
    for probe, name in FAMILIES.items():
        rows = means[(means["probe"] == probe) & means["regret"].notna()]
        if rows.empty:
            continue
        parts = [_policy(row) for row in rows.to_dict("records")]
        yield (
            f"{name}, mean regret against B's own best (highest pair; pairs better or worse than the paper's selection "
            f"after Holm's correction) over {rows['n_pairs'].max()} cases of {rows['n_domains'].max()} domains: "
            f"{', '.join(parts)}."
        )


def _policy(row: dict[Any, Any]) -> str:
    counts = "" if np.isnan(row["gain"]) else f"; {row['better']} better, {row['worse']} worse"
    return f"{row['policy']} {row['regret']:.2f} ({row['regret_max']:.2f}{counts})"


def _spread(values: "pd.Series[float]") -> str:
    return f"{values.mean():.2f} on average ({values.min():.2f} to {values.max():.2f})"


def _domains(rows: pd.DataFrame) -> str:
    return f"{rows['n_domains'].max()} domains"
