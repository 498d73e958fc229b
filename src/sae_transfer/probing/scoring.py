"""What a probe trained on A is worth on B: the numbers of one row of the transfer table."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from sae_transfer.core.arrays import Floats, Matrix
from sae_transfer.probing.evaluations import BootstrappedAUC, Evaluation, bootstrapped_auc
from sae_transfer.probing.kinds import KINDS, kinds
from sae_transfer.probing.probe import Probe
from sae_transfer.stats import intervals, p_values, roc, thresholds
from sae_transfer.stats.intervals import Estimate, estimates, reasons

FALSE_ALARMS = (1, 5)  # percent
NO_LAYER = "a space without a layer"
MEANS = ("auc", "accuracy", "delta_residual")  # what a mean over repeats has an interval for


def evaluated(
    probes: Sequence[Probe],
    matrices: Mapping[str, Matrix],
    test: Evaluation,
    residual: BootstrappedAUC | None = None,
) -> list[dict[str, Any]]:
    """What probes that were trained on A are worth on B: a row of the transfer table for each, from `probe` on.

    Args:
        probes: trained on A; the repeats of a control stand one after the other and share a row.
        matrices: B's test rows by the names that `Probe.input` gives them, `space` for most probes.
        test: those rows, as every probe is evaluated on them (see `evaluation_of`).
        residual: what to take the paired difference to; None where there is no layer beside the probes.
    """
    found = []
    for _, same in groupby(probes, key=lambda p: (p.kind, p.family, p.rank, p.n_features)):
        group = list(same)
        scores = [probe.score(matrices[probe.input]) for probe in group]
        numbers = (
            repeated_cell(group, scores, test, residual)
            if len(group) > 1
            else cell(group[0], scores[0], test, residual)
        )
        numbers["density"] = density(group[0], matrices)
        if group[0].feature_ids is None:
            numbers["reason"] = "; ".join(filter(None, [numbers["reason"], "density: it reads no feature"]))
        found.append(describe(group[0]) | numbers)
    return found


def density(probe: Probe, matrices: Mapping[str, Matrix]) -> float:
    """The share of B's test rows on which any feature of a probe fires; NaN for a probe that reads no features."""
    if probe.feature_ids is None:
        return np.nan
    fires = matrices[probe.input][:, probe.feature_ids] > 0
    return float(np.mean(fires.sum(axis=1) > 0)) if fires.shape[0] else 0.0


def cell(probe: Probe, scores: Floats, test: Evaluation, residual: BootstrappedAUC | None) -> dict[str, Any]:
    """The numbers of one row of the transfer table.

    Args:
        probe: the probe that gave the scores.
        scores: [n], of B's test rows.
        test: those rows.
        residual: what to take the paired difference to; None where there is no layer beside the probe.

    Returns:
        Values by column; `reason` says of each missing one why it is missing.
    """
    own, p = bootstrapped_auc(scores, test), probe.probability(scores)
    area = own.interval(test.effective_groups)
    resampled = thresholds.weighted_accuracy(p, test.labels, test.weights)
    share = intervals.interval(thresholds.accuracy(p, test.labels), resampled, test.equal_groups)
    if residual is None:
        delta = Estimate(reason=NO_LAYER)
    elif probe.kind == "residual":
        delta = Estimate(reason="the residual probe itself")
    else:
        delta = own.minus(residual, test.effective_groups)
    why = {
        "auc": area.reason,
        "accuracy": share.reason,
        "auc_train_sd": "trained once",
        "C": "no penalty" if np.isnan(probe.C) else "",
        "cv_auc": "no fold trained this probe" if np.isnan(probe.cv_auc) else "",
        "delta_residual": delta.reason,
        "layer": "" if residual else NO_LAYER,
        **_few_for_alarms(test),
    }
    return {
        **_points(probe, scores, test, residual),
        **area.columns("auc"),
        "auc_train_sd": np.nan,
        **share.columns("accuracy"),
        **delta.columns("delta_residual"),
        "delta_residual_p": p_values.student_p(delta),
        "reason": reasons(why),
    }


def _few_for_alarms(test: Evaluation) -> dict[str, str]:
    return {f"tpr_at_fpr_{percent}": roc.too_few_answerable(test.labels, percent / 100) for percent in FALSE_ALARMS}


def _points(probe: Probe, scores: Floats, test: Evaluation, residual: BootstrappedAUC | None) -> dict[str, Any]:
    """The numbers of a row that need no resampling."""
    p, area = probe.probability(scores), roc.auc(scores, test.labels)
    few = _few_for_alarms(test)
    return {
        "auc": area,
        "accuracy": thresholds.accuracy(p, test.labels),
        **thresholds.threshold_metrics(p, test.labels),
        **{
            name: np.nan if few[name] else roc.detection_rate(scores, test.labels, percent / 100)
            for name, percent in zip(few, FALSE_ALARMS, strict=True)
        },
        "cv_auc": probe.cv_auc,
        "delta_residual": area - residual.auc if residual else np.nan,
    }


def repeated_cell(
    probes: Sequence[Probe], scores: Sequence[Floats], test: Evaluation, residual: BootstrappedAUC | None
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
    means = {name: intervals.mean_interval([one[name] for one in singles]) for name in MEANS}
    own_labels = KINDS[probes[0].kind].role == "control"
    why = "a control with labels of its own" if own_labels else "no fold trained this control"
    return {
        **result,
        **estimates(means),
        "auc_train_sd": float(np.std([one["auc"] for one in singles], ddof=1)),
        "delta_residual_p": p_values.student_p(means["delta_residual"]),
        "reason": reasons({"cv_auc": why} | _few_for_alarms(test)),
    }


def target_trained(fitted: Mapping[int, Sequence[Probe]], n_train: int, sizes: Sequence[int]) -> list[Probe]:
    """The ceiling on B for a probe on `n_train` rows of A: the same kinds of probe, trained on B's training split.

    Args:
        fitted: B's probes by the number of rows that they were trained on.
        n_train: A's number of rows; B's probes on as many are taken, or on the largest number below that there is.
        sizes: every number of rows that A is trained on. If several map to the same probes of B, only the smallest
            keeps them.
    """
    closest = _largest(fitted, n_train)
    if next(size for size in sizes if _largest(fitted, size) == closest) != n_train:
        return []
    own = [probe for probe in fitted[closest] if probe.kind in kinds(ceiling=True) and probe.selected]
    return [replace(probe, kind="target_trained") for probe in own]


def _largest(fitted: Mapping[int, Sequence[Probe]], n_train: int) -> int:
    return max((size for size in fitted if size <= n_train), default=min(fitted))


def describe(probe: Probe) -> dict[str, Any]:
    """The columns that say which probe a row is about."""
    return {
        "probe": probe.kind,
        "family": probe.family,
        "rank": probe.rank,
        "n_features": probe.n_features,
        "selected": probe.selected,
        "uses_target": probe.kind == "target_trained",
        "feature_ids": probe.feature_text,
        "selection": probe.selection,
        "scaling": probe.scaling,
        "ranking": probe.ranking,
        "C": probe.C,
        "n_train": probe.n_train,
    }
