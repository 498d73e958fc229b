"""How much probes move when the same rows are asked under another template. Pure functions on arrays.

Within one dataset: probes trained under its own template, under each variation, or under all of them pooled; each
tested on the same test rows under every template, so that differences are paired. Transfer to other datasets'
variations is in the transfer table.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer import metrics
from sae_transfer.metrics import Estimate
from sae_transfer.probes import Floats, Probe, Training
from sae_transfer.similarity import cosine
from sae_transfer.transfer import TestSet

# One row a (space, dataset, training template, test template, probe).
#   train_variation      the template trained under; pooled: under all, copies of a row in one fold
#   accuracy             at p = 0.5 of the trained probe
#   delta_auc, delta_accuracy (with _low, _high)   less the probe trained and tested under the dataset's own template,
#                        on the same resamples of test groups
#   same_best            sparse_1: whether the same feature is best as under the own template
#   jaccard              of the features chosen and those under the own template: the top K of sparse_1, the N of the
#                        probe chosen under the own template for sparse_n
#   cosine_to_default    residual: of the weights (raw residual stream) with those trained under the own template
COLUMNS = (
    "layer space sae dataset train_variation test_variation probe n_features feature_ids C n_train n_test n_groups "
    "auc auc_low auc_high accuracy accuracy_low accuracy_high delta_auc delta_auc_low delta_auc_high "
    "delta_accuracy delta_accuracy_low delta_accuracy_high same_best jaccard cosine_to_default reason"
).split()
POOLED = "pooled"
KINDS = ("residual", "sparse_1", "sparse_n")


def variation_rows(
    fitted: Mapping[str, Sequence[Probe] | str], tests: Mapping[str, Training], test: TestSet
) -> Iterator[dict[str, Any]]:
    """What every probe is worth under every template.

    Args:
        fitted: by training template, the dataset's own first: the probes of one method, or why it could not fit.
        tests: by test template, the dataset's own first: the same rows in the same order.
        test: those rows' labels, groups and bootstrap weights.
    """
    own = next(iter(fitted.values()))
    if isinstance(own, str):
        raise ValueError(own)
    for kind in [kind for kind in KINDS if any(probe.kind == kind for probe in own)]:
        baseline = None
        for (train_variation, probes), (test_variation, rows) in product(fitted.items(), tests.items()):
            where: dict[str, Any] = {"train_variation": train_variation, "test_variation": test_variation}
            where |= {"probe": kind, "n_test": len(rows), "n_groups": test.n_groups}
            if isinstance(probes, str):
                yield where | {"reason": f"auc: {probes}"}
                continue
            probe = _chosen(probes, kind)
            measured = _measured(probe, rows, test)
            yield where | _describe(probe) | _numbers(measured, baseline, test) | _sameness(own, probes, kind)
            baseline = baseline or measured


def _chosen(probes: Sequence[Probe], kind: str) -> Probe:
    return next(probe for probe in probes if probe.kind == kind and probe.selected)


def _ids(probe: Probe) -> list[int]:
    return [] if probe.feature_ids is None else [int(feature) for feature in probe.feature_ids]


def _describe(probe: Probe) -> dict[str, Any]:
    ids = _ids(probe)
    about = {"n_features": len(ids), "feature_ids": " ".join(map(str, ids))}
    return {**about, "C": probe.C, "n_train": probe.n_train}


Measured = dict[str, tuple[float, Floats]]  # the number on the test rows, and on each resample [R]


def _measured(probe: Probe, rows: Training, test: TestSet) -> Measured:
    scores = probe.score(rows.X)
    p = probe.probability(scores)
    return {
        "auc": (metrics.auc(scores, test.labels), metrics.weighted_auc(scores, test.labels, test.weights)),
        "accuracy": (metrics.accuracy(p, test.labels), metrics.weighted_accuracy(p, test.labels, test.weights)),
    }


def _numbers(measured: Measured, baseline: Measured | None, test: TestSet) -> dict[str, Any]:
    groups = {"auc": test.effective_groups, "accuracy": test.n_groups}
    found = {name: metrics.interval(value, spread, groups[name]) for name, (value, spread) in measured.items()}
    for name, (value, spread) in measured.items():
        if baseline is None:
            found[f"delta_{name}"] = Estimate(np.nan, np.nan, np.nan, "what the others are compared with")
        else:
            first, first_spread = baseline[name]
            found[f"delta_{name}"] = metrics.difference_interval(value, first, spread, first_spread, groups[name])
    row: dict[str, Any] = {}
    for name, estimate in found.items():
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row | {"reason": "; ".join(f"{name}: {one.reason}" for name, one in found.items() if one.reason)}


def _sameness(own: Sequence[Probe], probes: Sequence[Probe], kind: str) -> dict[str, Any]:
    """How alike the probes are to those trained under the dataset's own template."""
    first, now = _chosen(own, kind), _chosen(probes, kind)
    if kind == "residual":
        return {"cosine_to_default": float(cosine(first.weights[None], now.weights[None])[0, 0])}
    n = 0 if kind == "sparse_1" else len(first.weights)
    jaccard = _jaccard(_features(own, kind, n), _features(probes, kind, n))
    same_best = _ids(first) == _ids(now) if kind == "sparse_1" else np.nan
    return {"same_best": same_best, "jaccard": jaccard}


def _features(probes: Sequence[Probe], kind: str, n: int) -> set[int]:
    """The features of all probes of the kind, or of the one on n features."""
    of_kind = [probe for probe in probes if probe.kind == kind and (not n or len(probe.weights) == n)]
    return {feature for probe in of_kind for feature in _ids(probe)}


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b) if a and b else np.nan


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows with the columns of `COLUMNS`; without rows an empty table with its header."""
    return pd.DataFrame(rows, columns=list(COLUMNS))


def answer(variations: pd.DataFrame) -> list[str]:
    """How much each kind of probe moves, trained under the dataset's own template: one sentence a dataset and kind."""
    said = []
    for (dataset, probe), rows in variations.groupby(["dataset", "probe"], sort=False):
        own = rows["train_variation"].iloc[0]
        moved = rows[(rows["train_variation"] == own) & (rows["test_variation"] != own)].dropna(subset=["delta_auc"])
        if moved.empty:
            continue
        worst = moved.loc[moved["delta_accuracy"].idxmin()]
        clear = int((moved["delta_accuracy_high"] < 0).sum())
        said.append(
            f"{dataset}, {probe}: under another template AUC moves by {moved['delta_auc'].mean():+.3f} and accuracy "
            f"by {moved['delta_accuracy'].mean():+.3f} on average over {len(moved)} pairs of space and template; the "
            f"interval of accuracy's change lies below 0 in {clear}; the worst is {worst['test_variation']} "
            f"({worst['delta_accuracy']:+.3f} in {worst['space']})."
        )
    return said or ["No dataset has prompt variations."]
