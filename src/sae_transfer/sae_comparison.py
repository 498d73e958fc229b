"""SAEs against each other: transfer beside width, training objective, L0 and explained variance. Pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer import metrics
from sae_transfer.metrics import Estimate
from sae_transfer.transfer import Reference

# saes.csv: one row a (SAE, probe, domain, B), and one for the mean over all B.
#   width, objective     objective: batchtopk, jumprelu, ...
#   l0, explained_variance, dead   on B's prompts; for the mean over all B, their means
#   probe                sparse_1 or sparse_n, as A's training rows chose them
#   domain               in_domain: A is B; ood: the mean over every other A
#   n_pairs              how many (A, B) the AUC is the mean of
#   delta                less the AUC of `reference`, the narrowest SAE on the layer, on the same resamples
# Each AUC and delta has its 95% interval over B's test groups beside it (_low, _high).
COLUMNS = (
    "layer sae width objective l0 explained_variance dead probe domain test n_pairs n_groups auc auc_low auc_high "
    "reference delta delta_low delta_high reason"
).split()
EVERY = "mean"

Areas = Mapping[tuple[str, str], Reference]  # by (A, B)


def comparison_rows(
    areas: Mapping[str, Areas], facts: Mapping[str, Mapping[str, Any]], n_groups: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The rows of one kind of probe over the SAEs of one layer.

    Args:
        areas: by SAE: AUC, and AUC on resamples of B that all SAEs share.
        facts: by SAE: width, objective and, by dataset, health (l0, explained_variance, dead).
        n_groups: of each dataset's test rows, as `metrics.interval` takes them for an AUC.
    """
    first = min(areas, key=lambda sae: facts[sae]["width"])  # of equals, the study's first
    rows = []
    for sae in areas:
        for domain in ("in_domain", "ood"):
            for test in (*n_groups, EVERY):
                pairs = [p for p in areas[sae] if (p[0] == p[1]) == (domain == "in_domain") and test in (p[1], EVERY)]
                row = {"sae": sae, "domain": domain, "test": test, "n_pairs": len(pairs), "reference": first}
                row |= _facts(facts[sae], list(n_groups) if test == EVERY else [test])
                if not pairs:
                    rows.append(row | {"reason": "auc: no other dataset"})
                    continue
                groups = _groups([n_groups[b] for b in dict.fromkeys(b for _, b in pairs)])
                own, base = (_mean(areas[each], pairs) for each in (sae, first))
                rows.append(row | {"n_groups": int(groups)} | _numbers(own, None if sae == first else base, groups))
    return rows


def _groups(of_tests: Sequence[float]) -> float:
    """How many groups a mean over test sets rests on: all of theirs, unless one has too few for an interval."""
    return sum(of_tests) if min(of_tests) >= metrics.MIN_GROUPS else min(of_tests)


def _mean(areas: Areas, pairs: Sequence[tuple[str, str]]) -> Reference:
    return Reference(
        float(np.mean([areas[pair].auc for pair in pairs])),
        np.mean([areas[pair].resampled for pair in pairs], axis=0),
    )


def _numbers(own: Reference, base: Reference | None, groups: float) -> dict[str, Any]:
    found = {"auc": metrics.interval(own.auc, own.resampled, groups)}
    if base is None:
        found["delta"] = Estimate(np.nan, np.nan, np.nan, "the reference itself")
    else:
        found["delta"] = metrics.difference_interval(own.auc, base.auc, own.resampled, base.resampled, groups)
    row: dict[str, Any] = {}
    for name, one in found.items():
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    return row | {"reason": "; ".join(f"{name}: {one.reason}" for name, one in found.items() if one.reason)}


def _facts(about: Mapping[str, Any], datasets: Sequence[str]) -> dict[str, Any]:
    health = [about["health"][name] for name in datasets]
    means = {key: float(np.mean([getattr(one, key) for one in health])) for key in ("l0", "explained_variance", "dead")}
    return {"width": about["width"], "objective": about["objective"]} | means


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows with the columns of `COLUMNS`."""
    return pd.DataFrame(rows, columns=COLUMNS)


def answer(saes: pd.DataFrame) -> list[str]:
    """Transfer beside width, objective, L0 and explained variance: one sentence a layer and kind of probe."""
    mean = saes[(saes["test"] == EVERY) & (saes["domain"] == "ood")].dropna(subset=["auc"])
    said = []
    for (layer, probe), rows in mean.groupby(["layer", "probe"], sort=False):
        parts = []
        for row in rows.sort_values("width", kind="stable").to_dict("records"):
            part = (
                f"{row['sae']} ({row['width']} wide, {row['objective']}, L0 {row['l0']:.0f}, explained variance "
                f"{row['explained_variance']:.2f}) {row['auc']:.3f} ({row['auc_low']:.3f} to {row['auc_high']:.3f})"
            )
            if not np.isnan(row["delta"]):
                low, high = row["delta_low"], row["delta_high"]
                part += f", {row['delta']:+.3f} ({low:+.3f} to {high:+.3f}) from {row['reference']}"
            parts.append(part)
        said.append(f"Layer {layer}, {probe}, mean AUC out of domain: {'; '.join(parts)}.")
    return said or ["Transfer of SAEs needs two datasets."]
