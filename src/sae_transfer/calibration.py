"""Calibration under shift: a ranking that is lost told from a threshold that has moved. Pure functions on arrays.

Everything is computed from logits: above 0 a row is called answerable (p >= 0.5). An alarm is a logit at or below a
threshold; a false alarm is one for an answerable row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from sae_transfer import metrics
from sae_transfer.metrics import Estimate
from sae_transfer.probes import Floats, Probe, Training
from sae_transfer.splits import folds
from sae_transfer.transfer import TestSet

# One row a (space, A, B, probe, labels). Every number but a count has its 95% interval beside it (_low, _high).
#   labels, uses_target  how many labels of B's training split (half of either class) the bias was fitted on again, the
#                        slope kept; 0: A's bias
#   draws                how many random draws of those rows the numbers are means over; accuracy_sd: their deviation
#   auc, auc_lost        AUC on B's test rows, and how much it lies below that on A's test rows
#   accuracy             at p = 0.5; accuracy_regained: what the labels add to it, paired
#   tpr_a_1, fpr_a_1     unanswerable rows of B caught and false alarms on B, at the threshold that gives at most 1%
#                        false alarms on A's training rows, scored out of fold; tpr_a_5, fpr_a_5: at most 5%
#   tpr_at_fpr_1, _5     caught on B at the threshold that gives at most 1% or 5% on B's test rows: ranking alone
#   ece, brier           expected calibration error over BINS equal bins of p, and mean squared error of p
#   verdict              lost ranking: the interval of auc_lost lies above MARGIN; shifted threshold: that of
#                        accuracy_regained with the most labels does; both; holds: neither; in domain: A is B
NUMBERS = (
    "auc auc_lost accuracy accuracy_regained tpr_a_1 fpr_a_1 tpr_a_5 fpr_a_5 tpr_at_fpr_1 tpr_at_fpr_5 ece brier"
).split()
COLUMNS = [
    *"layer space sae train test in_domain probe labels uses_target draws n_train n_test n_groups".split(),
    *(name + end for name in NUMBERS for end in ("", "_low", "_high")),
    *"accuracy_sd verdict reason".split(),
]
LABELS = (0, 16, 64)
DRAWS = 20
BINS = 10
MARGIN = 0.02  # a difference smaller than this is no verdict, however sure
FALSE_ALARMS = {1: 0.01, 5: 0.05}

Measured = dict[str, tuple[float, Floats]]  # a number on the test rows, and on each resample [R] of them


@dataclass(frozen=True)
class Scored:
    """Rows under a probe: `logits` [n] and `labels` [n]."""

    logits: Floats
    labels: NDArray[np.int_]


@dataclass(frozen=True)
class Home:
    """A probe's AUC on A's test rows, on resamples [R] of them, and how many groups they are."""

    auc: float
    resampled: Floats
    groups: float


def logits(probe: Probe, X: Any) -> Floats:
    return probe.slope * probe.score(X) + probe.offset


def held_out(
    train: Training, method: Callable[[Training, int], list[Probe]], n_folds: int, seed: int
) -> dict[str, Scored]:
    """A's training rows scored out of fold: by kind, under the probe that the whole method chose on the other folds."""
    fold = folds(train.labels, list(train.groups), n_folds, seed)
    found: dict[str, Floats] = {}
    for number in range(n_folds):
        unseen = fold == number
        for probe in method(train.rows(~unseen), seed):
            if probe.selected:
                scores = found.setdefault(probe.kind, np.full(len(train), np.nan))
                scores[unseen] = logits(probe, train.X[unseen])
    return {kind: Scored(scores, train.labels) for kind, scores in found.items()}


def threshold(rows: Scored, false_alarms: float) -> float:
    """The highest logit at or below which at most a share of `false_alarms` of the answerable rows lies.

    Minus infinity where no logit of the rows will do, NaN without answerable rows.
    """
    answerable = np.sort(rows.logits[rows.labels == 1])
    if not len(answerable):
        return np.nan
    candidates = np.unique(rows.logits)
    share = np.searchsorted(answerable, candidates, side="right") / len(answerable)
    return float(candidates[share <= false_alarms].max(initial=-np.inf))


def bias_shift(logits: Floats, labels: NDArray[np.int_]) -> Floats:
    """What to add to the logits of each draw so that its log loss is least: the bias fitted again, the slope kept.

    Args:
        logits: [draws, k].
        labels: [draws, k]; both classes in every draw.

    Returns:
        [draws].
    """
    reach, positive = np.abs(logits).max(axis=1) + 40, labels == 1
    low, high = -reach, reach
    for _ in range(60):  # the gradient rises with the shift: bisection cannot fail where Newton's steps saturate
        middle = (low + high) / 2
        moved = logits + middle[:, None]
        # errors of either class, each a sum of small numbers: p - y would lose them beside 1 where classes are apart
        above = (expit(moved) * ~positive).sum(axis=1) > (expit(-moved) * positive).sum(axis=1)
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.asarray((low + high) / 2)


def shifts(target: Scored, k: int, rng: np.random.Generator) -> Floats:
    """The bias shifts [draws] that k random labels of B give, k/2 of each class; none where B has not so many.

    Balanced, because p = 0.5 presumes it: where a strong penalty leaves flat logits, a random draw's base rate would
    outweigh them.
    """
    if not k:
        return np.zeros(1)
    by_class = [np.flatnonzero(target.labels == label) for label in (0, 1)]
    if min(map(len, by_class)) < k // 2:
        return np.zeros(0)
    drawn = np.array([np.concatenate([rng.permutation(rows)[: k // 2] for rows in by_class]) for _ in range(DRAWS)])
    return bias_shift(target.logits[drawn], target.labels[drawn])


def measured(logits: Floats, shifts: Floats, thresholds: Mapping[int, float], test: TestSet) -> Measured:
    """What depends on the threshold, as means over the shifts.

    Args:
        logits: [n] of B's test rows.
        shifts: [draws], added to them.
        thresholds: by percent of false alarms.
        test: the rows.
    """
    moved, y = logits[:, None] + shifts, test.labels[:, None]
    p, answerable = expit(moved), test.labels == 1
    found = {
        "accuracy": _share(((moved >= 0) == (y == 1)).mean(axis=1), test, None),
        "brier": _share(((p - y) ** 2).mean(axis=1), test, None),
        "ece": _ece(p, test),
    }
    for percent, at in thresholds.items():
        alarm = (moved <= at).mean(axis=1) if not np.isnan(at) else np.full(len(logits), np.nan)
        found[f"tpr_a_{percent}"] = _share(alarm, test, ~answerable)
        found[f"fpr_a_{percent}"] = _share(alarm, test, answerable)
    return found


def _share(values: Floats, test: TestSet, part: NDArray[np.bool_] | None) -> tuple[float, Floats]:
    """The mean of the values over a part of the rows, plain and under each resample; NaN for an empty part."""
    weights, kept = (test.weights, values) if part is None else (test.weights[:, part], values[part])
    total = weights.sum(axis=1)
    spread = np.divide(weights @ kept, total, out=np.full(len(total), np.nan), where=total > 0)
    return (float(kept.mean()) if len(kept) else np.nan), spread


def _ece(p: Floats, test: TestSet) -> tuple[float, Floats]:
    """The mean over draws of sum_bins |sum_rows (p - y)| / n, for p [n, draws]."""
    n, draws = p.shape
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = np.zeros((n, draws, BINS))
    np.put_along_axis(gaps, bins[:, :, None], (p - test.labels[:, None])[:, :, None], axis=2)
    value = float(np.abs(gaps.sum(axis=0)).sum(axis=1).mean() / n)
    sums = np.abs(test.weights @ gaps.reshape(n, -1)).sum(axis=1)
    return value, sums / draws / test.weights.sum(axis=1)


def ranking(logits: Floats, test: TestSet) -> Measured:
    """What no threshold changes: AUC, and the share caught at exactly 1% and 5% false alarms on these rows."""
    found = {"auc": (metrics.auc(logits, test.labels), metrics.weighted_auc(logits, test.labels, test.weights))}
    order, starts = metrics.ties(logits)
    ends = np.r_[starts[1:], len(order)] - 1
    answerable, weights = test.labels[order] == 1, test.weights[:, order]
    false = np.cumsum(weights * answerable, axis=1)
    true = (weights.cumsum(axis=1) - false)[:, ends]
    false, all_false, all_true = false[:, ends], false[:, -1:], true[:, -1]
    for percent, share in FALSE_ALARMS.items():
        caught = np.where(false <= share * all_false, true, 0).max(axis=1)
        known = (all_false[:, 0] > 0) & (all_true > 0)
        spread = np.divide(caught, all_true, out=np.full(len(caught), np.nan), where=known)
        found[f"tpr_at_fpr_{percent}"] = (metrics.detection_rate(logits, test.labels, share), spread)
    return found


def calibration_rows(
    logits: Floats, test: TestSet, source: Scored, moves: Mapping[int, Floats], home: Home | None
) -> list[dict[str, Any]]:
    """The rows of one (probe, A, B), one for each number of labels.

    Args:
        logits: [n] of B's test rows.
        test: those rows.
        source: A's training rows, scored out of fold.
        moves: by number of labels, the bias shifts of its draws; none where they cannot be drawn.
        home: the probe on A's test rows; None where B is A.
    """
    ranked, groups = ranking(logits, test), _groups(test)
    fixed = {name: metrics.interval(value, spread, groups[name]) for name, (value, spread) in ranked.items()}
    if home is not None:
        (area, spread), fewest = ranked["auc"], min(home.groups, groups["auc"])
        fixed["auc_lost"] = metrics.difference_interval(home.auc, area, home.resampled, spread, fewest)
    at = {percent: threshold(source, share) for percent, share in FALSE_ALARMS.items()}
    by_labels = {k: measured(logits, shift, at, test) for k, shift in moves.items() if len(shift)}
    rows = []
    for k, shift in moves.items():
        found = by_labels.get(k, {})
        estimates = fixed | {name: metrics.interval(*value, groups[name]) for name, value in found.items()}
        if k and found:
            (now, spread), (before, spread_before) = found["accuracy"], by_labels[0]["accuracy"]
            regained = metrics.difference_interval(now, before, spread, spread_before, test.n_groups)
            estimates["accuracy_regained"] = regained
        row: dict[str, Any] = {"labels": k, "uses_target": k > 0, "draws": len(shift), "n_groups": test.n_groups}
        for name, one in estimates.items():
            row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        rows.append(row | {"accuracy_sd": _deviation(logits, shift, test), "reason": _reason(estimates, k, shift)})
    verdict = "in domain" if home is None else _verdict(rows)
    return [row | {"verdict": verdict} for row in rows]


def _groups(test: TestSet) -> dict[str, float]:
    """How many groups each number rests on."""
    holding = [float(len(np.unique(test.groups[test.labels == label]))) for label in (0, 1)]
    ranked = dict.fromkeys(("auc", *(f"tpr_at_fpr_{percent}" for percent in FALSE_ALARMS)), test.effective_groups)
    alarms = {f"{rate}_a_{percent}": holding[rate == "fpr"] for rate in ("tpr", "fpr") for percent in FALSE_ALARMS}
    return ranked | alarms | dict.fromkeys(("accuracy", "brier", "ece"), float(test.n_groups))


def _deviation(logits: Floats, shift: Floats, test: TestSet) -> float:
    if len(shift) < 2:
        return np.nan
    right = ((logits[:, None] + shift >= 0) == (test.labels[:, None] == 1)).mean(axis=0)
    return float(right.std(ddof=1))


def _reason(estimates: Mapping[str, Estimate], k: int, shift: Floats) -> str:
    why = {name: one.reason for name, one in estimates.items() if one.reason}
    if k and not len(shift):
        why["accuracy"] = f"B's training split has fewer than {k // 2} rows of a class"
    if not k:
        why |= {"accuracy_regained": "no labels of B"}
    if len(shift) < 2:
        why["accuracy_sd"] = "fewer than two draws"
    if "auc_lost" not in estimates:
        why["auc_lost"] = "A's own test rows"
    return "; ".join(f"{name}: {reason}" for name, reason in why.items())


def _verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    most = rows[-1]
    lost, regained = most.get("auc_lost_low", np.nan), most.get("accuracy_regained_low", np.nan)
    if np.isnan(lost) or np.isnan(regained):
        return "unknown"
    ranking_lost, moved = lost > MARGIN, regained > MARGIN
    return {(1, 0): "lost ranking", (0, 1): "shifted threshold", (1, 1): "both"}.get((ranking_lost, moved), "holds")


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows with the columns of `COLUMNS`."""
    return pd.DataFrame(rows, columns=COLUMNS)


def answer(calibration: pd.DataFrame) -> list[str]:
    """How accuracy falls out of domain: one sentence a kind of probe."""
    said = []
    for kind, rows in calibration[~calibration["in_domain"].astype(bool)].groupby("probe", sort=False):
        plain, most = rows[rows["labels"] == 0], rows[rows["labels"] == rows["labels"].max()]
        verdicts = plain["verdict"].value_counts()
        counts = ", ".join(f"{name} {number}" for name, number in verdicts.items())
        said.append(
            f"{kind} out of domain: accuracy {plain['accuracy'].mean():.2f} at A's threshold and "
            f"{most['accuracy'].mean():.2f} with the bias fitted on {most['labels'].max()} labels of B; a threshold "
            f"for 5% false alarms on A gives {plain['fpr_a_5'].mean():.0%} on B; of {len(plain)} pairs: {counts}."
        )
    return said or ["Calibration under shift needs two datasets."]
