"""The transfer table: what a probe trained on A is worth on B, with intervals. Pure functions on arrays."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_transfer import metrics
from sae_transfer.config import Params
from sae_transfer.metrics import Estimate
from sae_transfer.probes import Probe
from sae_transfer.records import generator

Floats = NDArray[np.float64]

# One row a (space, A, B, probe). `uses_target` marks what is trained on B's training split. A missing value is NaN, and
# `reason` says why; the spaces `text` and `verbal` have no layer, hence no residual probe to take a difference to.
COLUMNS = (
    "model layer space sae train test in_domain train_variation test_variation condition probe family rank "
    "n_features selected uses_target feature_ids scaling ranking C n_train n_test n_groups auc auc_low auc_high "
    "auc_train_sd accuracy accuracy_low accuracy_high balanced_accuracy f1 brier tpr_at_fpr_1 tpr_at_fpr_5 "
    "cv_auc delta_residual delta_low delta_high reason"
).split()
NO_LAYER = "a space without a layer"


class TransferParams(Params):
    """Section `transfer` of the params."""

    resamples: int = 1000
    whole: bool = False  # also test on all rows of B, where A is another dataset


@dataclass(frozen=True)
class TestSet:
    """B's test rows: `labels` [n] of 0 and 1, `groups` [n], and the bootstrap weights [R, n] that all probes share."""

    labels: NDArray[np.int_]
    groups: NDArray[np.str_]
    weights: Floats

    @cached_property
    def n_groups(self) -> int:
        return len(np.unique(self.groups))

    @cached_property
    def effective_groups(self) -> float:
        return metrics.effective_groups(self.labels, self.groups)


def test_set(
    labels: NDArray[np.int_], groups: NDArray[np.str_], dataset: str, seed: int, params: TransferParams
) -> TestSet:
    """B's test rows with bootstrap weights that depend on the seed and the dataset alone."""
    weights = metrics.group_weights(groups, params.resamples, generator(seed, "test bootstrap", dataset))
    return TestSet(labels, groups, weights)


@dataclass(frozen=True)
class Reference:
    """A probe's AUC on the test rows, and on each resample [R] of them."""

    auc: float
    resampled: Floats


def reference(scores: Floats, test: TestSet) -> Reference:
    resampled = metrics.weighted_auc(scores, test.labels, test.weights)
    return Reference(metrics.auc(scores, test.labels), resampled)


def cell(probe: Probe, scores: Floats, test: TestSet, residual: Reference | None) -> dict[str, Any]:
    """The numbers of one row of the transfer table.

    Args:
        probe: the probe that gave the scores.
        scores: [n], of B's test rows.
        test: those rows.
        residual: what to take the paired difference to; None where there is no layer beside the probe.

    Returns:
        Values by column; `reason` says of each missing one why it is missing.
    """
    own, p = reference(scores, test), probe.probability(scores)
    points = _points(probe, scores, test, residual)
    area = metrics.interval(own.auc, own.resampled, test.effective_groups)
    resampled = metrics.weighted_accuracy(p, test.labels, test.weights)
    share = metrics.interval(points["accuracy"], resampled, test.n_groups)
    if residual is None or probe.kind == "residual":
        delta = Estimate(np.nan, np.nan, np.nan, "the residual probe itself" if residual else NO_LAYER)
    else:
        both = own.resampled, residual.resampled
        delta = metrics.difference_interval(own.auc, residual.auc, *both, test.effective_groups)
    return points | {
        "auc_low": area.low,
        "auc_high": area.high,
        "auc_train_sd": np.nan,
        "accuracy_low": share.low,
        "accuracy_high": share.high,
        "delta_residual": delta.value,
        "delta_low": delta.low,
        "delta_high": delta.high,
        "reason": _reasons(
            auc=area.reason,
            accuracy=share.reason,
            auc_train_sd="trained once",
            C="no penalty" if np.isnan(probe.C) else "",
            cv_auc="no fold trained this probe" if np.isnan(probe.cv_auc) else "",
            delta_residual=delta.reason,
            layer="" if residual else NO_LAYER,
        ),
    }


def _points(probe: Probe, scores: Floats, test: TestSet, residual: Reference | None) -> dict[str, Any]:
    """The numbers of a row that need no resampling."""
    p, area = probe.probability(scores), metrics.auc(scores, test.labels)
    return {
        "auc": area,
        "accuracy": metrics.accuracy(p, test.labels),
        **metrics.threshold_metrics(p, test.labels),
        "tpr_at_fpr_1": metrics.detection_rate(scores, test.labels, 0.01),
        "tpr_at_fpr_5": metrics.detection_rate(scores, test.labels, 0.05),
        "cv_auc": probe.cv_auc,
        "delta_residual": area - residual.auc if residual else np.nan,
    }


def repeated_cell(
    probes: list[Probe], scores: list[Floats], test: TestSet, residual: Reference | None
) -> dict[str, Any]:
    """One row for the repeats of a control: means over the repeats, and Student's interval of each mean.

    Args:
        probes: the repeats.
        scores: [n] of B's test rows for each of them.
        test: those rows.
        residual: what to take the paired difference to.
    """
    singles = [_points(probe, s, test, residual) for probe, s in zip(probes, scores, strict=True)]
    result: dict[str, Any] = {key: float(np.mean([one[key] for one in singles])) for key in singles[0]}
    for name, value in (("auc", "auc"), ("accuracy", "accuracy"), ("delta", "delta_residual")):
        over = metrics.mean_interval([one[value] for one in singles])
        result |= {f"{name}_low": over.low, f"{name}_high": over.high}
    result["auc_train_sd"] = float(np.std([one["auc"] for one in singles], ddof=1))
    own_labels = probes[0].kind == "shuffled_labels"
    reason = "a control with labels of its own" if own_labels else "no fold trained this control"
    return {**result, "reason": _reasons(cv_auc=reason)}


CEILINGS = ("residual", "sparse_1", "sparse_n")


def target_trained(fitted: dict[int, list[Probe]], n_train: int, sizes: list[int]) -> list[Probe]:
    """The ceiling on B for a probe on `n_train` rows of A: the same kinds of probe, trained on B's training split.

    Args:
        fitted: B's probes by the number of rows that they were trained on.
        n_train: A's number of rows; B's probes on as many are taken, or on the largest number below that there is.
        sizes: every number of rows that A is trained on; the smallest one that gets the same probes of B keeps them.
    """
    closest = _largest(fitted, n_train)
    if next(size for size in sizes if _largest(fitted, size) == closest) != n_train:
        return []
    own = [probe for probe in fitted[closest] if probe.kind in CEILINGS and probe.selected]
    return [replace(probe, kind="target_trained") for probe in own]


def _largest(fitted: dict[int, list[Probe]], n_train: int) -> int:
    return max((size for size in fitted if size <= n_train), default=min(fitted))


def _reasons(**missing: str) -> str:
    return "; ".join(f"{column}: {reason}" for column, reason in missing.items() if reason)


def describe(probe: Probe) -> dict[str, Any]:
    """The columns that say which probe a row is about."""
    ids = [] if probe.feature_ids is None else [int(feature) for feature in probe.feature_ids]
    return {
        "probe": probe.kind,
        "family": probe.family,
        "rank": probe.rank,
        "n_features": probe.n_features,
        "selected": probe.selected,
        "uses_target": probe.kind == "target_trained",
        "feature_ids": " ".join(map(str, ids)),
        "scaling": probe.scaling,
        "ranking": probe.ranking,
        "C": probe.C,
        "n_train": probe.n_train,
    }
