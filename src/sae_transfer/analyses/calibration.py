"""Calibration under shift: a ranking that is lost told from a threshold that has moved.

Everything is computed from logits: above 0 a row is called answerable (p >= 0.5). An alarm is a logit at or below a
threshold; a false alarm is one for an answerable row. A's training rows are scored out of fold: by probes that the
whole method chose on the other folds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from sae_transfer.analyses.analysis import Analysis, by_space
from sae_transfer.core.arrays import Floats
from sae_transfer.core.randomness import rng_for
from sae_transfer.probing import kinds
from sae_transfer.probing.evaluations import BootstrappedAUC, Evaluation, bootstrapped_auc
from sae_transfer.results.schema import REASON, Column, Table, estimate, integers
from sae_transfer.results.sections import Picture, Section, Tables, look_up
from sae_transfer.results.transfer_table import TRANSFER
from sae_transfer.stats import intervals, roc
from sae_transfer.stats.intervals import Estimate, estimates, reasons

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

CAUGHT = "share of B's unanswerable rows that raise an alarm, whose positive class is `unanswerable`"
FALSE = "share of B's answerable rows that raise an alarm, whose positive class is `unanswerable`"
AT_SOURCE = "at the threshold that gives at most {}% false alarms on A's training rows, scored out of fold"
AT_TARGET = "at the threshold that gives at most {}% false alarms on B's test rows: ranking alone"
TABLE = Table(
    "calibration",
    "one row a (space, A, B, probe, number of labels)",
    (
        *TRANSFER.pick("layer", "space", "sae", "train", "test", "in_domain", "probe"),
        Column(
            "labels",
            "integer",
            "labels of B's training split, half of either class, that the bias was fitted on again, the slope kept; "
            "0: A's bias",
        ),
        Column("uses_target", "flag", "whether there are such labels"),
        *integers(draws="random draws of those rows that the numbers are means over"),
        *TRANSFER.pick("n_train", "n_test", "n_groups", "auc", "auc_low", "auc_high"),
        *estimate("auc_lost", "how much the AUC on B's test rows lies below that on A's"),
        *estimate("accuracy", "share of B's test rows on the right side of p = 0.5"),
        *estimate("accuracy_regained", "what the labels add to the accuracy, paired"),
        *estimate("tpr_at_source_fpr1", f"{CAUGHT}, {AT_SOURCE.format(1)}", heading="caught"),
        *estimate("fpr_at_source_fpr1", f"{FALSE}, {AT_SOURCE.format(1)}", heading="false alarms"),
        *estimate("tpr_at_source_fpr5", f"{CAUGHT}, {AT_SOURCE.format(5)}", heading="caught"),
        *estimate("fpr_at_source_fpr5", f"{FALSE}, {AT_SOURCE.format(5)}", heading="false alarms"),
        *estimate("tpr_at_fpr_1", f"{CAUGHT}, {AT_TARGET.format(1)}"),
        *estimate("tpr_at_fpr_5", f"{CAUGHT}, {AT_TARGET.format(5)}"),
        Column("ece", "number", "expected calibration error over 10 equal bins of p", heading="calibration error"),
        Column(
            "ece_by_chance",
            "number",
            "what `ece` of a perfectly calibrated probe stays below in 95% of such samples of B",
            heading="by chance below",
        ),
        *estimate("brier", "mean squared error of p"),
        Column("accuracy_sd", "number", "standard deviation of the accuracy over the draws"),
        Column(
            "verdict",
            "text",
            "lost ranking: the interval of auc_lost lies above 0.02; shifted threshold: that of accuracy_regained with "
            "the most labels does; both; holds: both intervals lie below 0.05; undecided: none of these; no ranking in "
            "domain: the interval of the AUC on A's own test rows does not lie above 0.5; in domain: A is B",
        ),
        REASON,
    ),
)
LABELS = (0, 16, 64)
VERDICTS = {
    "holds": "holds",
    "shifted threshold": "threshold moved",
    "lost ranking": "ranking lost",
    "both": "both",
    "unknown": "inconclusive",
}
DRAWS = 20
BINS = 10
ONE_SIDED = 1.645  # standard deviations above the mean, below which a normal number lies in 95%
MARGIN = 0.02  # a difference smaller than this is no verdict, however sure
HOLDS = 0.05  # what holds has lost less than this for sure
FALSE_ALARMS = {1: 0.01, 5: 0.05}

Measured = dict[str, tuple[float, Floats]]  # a number on the test rows, and on each resample [R] of them


@dataclass(frozen=True)
class Scored:
    """Rows under a probe: `logits` [n] and `labels` [n]."""

    logits: Floats
    labels: NDArray[np.int_]


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one space."""
    space, rows = study.space(part), []
    train = {name: study.rows(space, name) for name in study.datasets}
    unseen = {name: study.rows(space, name, "unseen").X for name in study.datasets}
    tests = {name: study.evaluation(name, "unseen") for name in study.datasets}
    calibrated = kinds.kinds(calibrated=True)
    saved = [(a, probe) for a in study.datasets for probe in study.full_probes(space, a)]
    for a, probe in [(a, probe) for a, probe in saved if probe.selected and probe.kind in calibrated]:
        source = Scored(np.asarray(probe.oof_logits), train[a].labels)
        logits = {b: probe.logits(probe.score(unseen[b])) for b in tests}
        on_a = bootstrapped_auc(logits[a], tests[a]), tests[a].effective_groups
        for b, test in tests.items():
            # in domain, rows that trained the probe are scored by those that did not see them
            target = source if a == b else Scored(probe.logits(probe.score(train[b].X)), train[b].labels)
            updates = {k: bias_updates(target, k, rng_for(study.seed, "labels", b, k)) for k in LABELS}
            about = {"layer": space.layer, "space": space.name, "sae": space.sae, "train": a, "test": b}
            about |= {"in_domain": a == b, "probe": probe.kind, "n_train": probe.n_train, "n_test": len(test.labels)}
            found = calibration_rows(logits[b], test, source, updates, None if a == b else on_a)
            rows += [about | row for row in found]
    return TABLE.frame(rows)


def threshold(rows: Scored, false_alarms: float) -> float:
    """The logit at or below which at most a share of `false_alarms` of the answerable rows lies, and all that can.

    It lies midway between two logits of the rows: on one of them, such as that of all rows where a feature is silent,
    the smallest change of the bias would end those rows' alarms. Minus infinity where no logit of the rows will do, NaN
    without answerable rows.
    """
    answerable = np.sort(rows.logits[rows.labels == 1])
    if not len(answerable):
        return np.nan
    candidates = np.unique(rows.logits)
    allowed = int((np.searchsorted(answerable, candidates, side="right") / len(answerable) <= false_alarms).sum())
    return float(candidates[allowed - 1 : allowed + 1].mean()) if allowed else -np.inf


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


def bias_updates(target: Scored, k: int, rng: np.random.Generator) -> Floats:
    """The updates of the bias [draws] that k random labels of B give, k/2 of each class; none where B has not so many.

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


def measured(logits: Floats, updates: Floats, thresholds: Mapping[int, float], test: Evaluation) -> Measured:
    """What depends on the threshold, as means over the updates of the bias.

    Args:
        logits: [n] of B's test rows.
        updates: [draws], added to them.
        thresholds: by percent of false alarms.
        test: the rows.
    """
    moved, y = logits[:, None] + updates, test.labels[:, None]
    p, answerable = expit(moved), test.labels == 1
    found = {
        "accuracy": _share(((moved >= 0) == (y == 1)).mean(axis=1), test, None),
        "brier": _share(((p - y) ** 2).mean(axis=1), test, None),
    }
    for percent, at in thresholds.items():
        alarm = (moved <= at).mean(axis=1) if not np.isnan(at) else np.full(len(logits), np.nan)
        found[f"tpr_at_source_fpr{percent}"] = _share(alarm, test, ~answerable)
        found[f"fpr_at_source_fpr{percent}"] = _share(alarm, test, answerable)
    return found


def _share(values: Floats, test: Evaluation, part: NDArray[np.bool_] | None) -> tuple[float, Floats]:
    """The mean of the values over a part of the rows, plain and under each resample; NaN for an empty part."""
    weights, kept = (test.weights, values) if part is None else (test.weights[:, part], values[part])
    total = weights.sum(axis=1)
    spread = np.divide(weights @ kept, total, out=np.full(len(total), np.nan), where=total > 0)
    return (float(kept.mean()) if len(kept) else np.nan), spread


def calibration_error(p: Floats, test: Evaluation) -> tuple[float, float]:
    """The expected calibration error, and what that of a calibrated probe stays below in 95% of such samples.

    The error is sum over bins of |sum over rows of (p - y)| / n. It is never 0: a perfectly calibrated probe reads 0.07
    on 200 rows. Were p right, a bin's sum would be normal around 0, with the variance that the resamples of groups give
    it; so the error's mean and deviation follow from those of |normal|. It has no interval: none covers near 0.

    Args:
        p: [n, draws]; means over the draws.
        test: the rows.
    """
    n, draws = p.shape
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = np.zeros((n, draws, BINS))
    np.put_along_axis(gaps, bins[:, :, None], (p - test.labels[:, None])[:, :, None], axis=2)
    value = float(np.abs(gaps.sum(axis=0)).sum(axis=1).mean() / n)
    variances = (test.weights @ gaps.reshape(n, -1)).var(axis=0, ddof=1).reshape(draws, BINS)
    mean = np.sqrt(2 / np.pi) * np.sqrt(variances).sum(axis=1)
    deviation = np.sqrt((1 - 2 / np.pi) * variances.sum(axis=1))
    return value, float((mean + ONE_SIDED * deviation).mean() / n)


def ranking(logits: Floats, test: Evaluation) -> Measured:
    """What no threshold changes: AUC, and the share caught at exactly 1% and 5% false alarms on these rows."""
    found = {"auc": (roc.auc(logits, test.labels), roc.weighted_auc(logits, test.labels, test.weights))}
    order, starts = roc.ties(logits)
    ends = np.r_[starts[1:], len(order)] - 1
    answerable, weights = test.labels[order] == 1, test.weights[:, order]
    false = np.cumsum(weights * answerable, axis=1)
    true = (weights.cumsum(axis=1) - false)[:, ends]
    false, all_false, all_true = false[:, ends], false[:, -1:], true[:, -1]
    for percent, share in FALSE_ALARMS.items():
        caught = np.where(false <= share * all_false, true, 0).max(axis=1)
        known = (all_false[:, 0] > 0) & (all_true > 0)
        spread = np.divide(caught, all_true, out=np.full(len(caught), np.nan), where=known)
        found[f"tpr_at_fpr_{percent}"] = (roc.detection_rate(logits, test.labels, share), spread)
    return found


def calibration_rows(
    logits: Floats,
    test: Evaluation,
    source: Scored,
    updates: Mapping[int, Floats],
    source_reference: tuple[BootstrappedAUC, float] | None,
) -> list[dict[str, Any]]:
    """The rows of one (probe, A, B), one for each number of labels.

    Args:
        logits: [n] of B's test rows.
        test: those rows.
        source: A's training rows, scored out of fold.
        updates: by number of labels, the updates of the bias of its draws; none where they cannot be drawn.
        source_reference: the probe's AUC on A's test rows and how many groups it rests on; None where B is A.
    """
    ranked, groups = ranking(logits, test), _groups(test)
    few = {f"tpr_at_fpr_{p}": roc.too_few_answerable(test.labels, share) for p, share in FALSE_ALARMS.items()}
    told = {name: value for name, value in ranked.items() if not few.get(name)}
    fixed = {name: intervals.interval(value, spread, groups[name]) for name, (value, spread) in told.items()}
    if source_reference is not None:
        (area, spread), (on_a, fewest) = ranked["auc"], source_reference
        fewest = min(fewest, groups["auc"])
        fixed["auc_lost"] = intervals.difference_interval(on_a.auc, area, on_a.resampled, spread, fewest)
    at = {percent: threshold(source, share) for percent, share in FALSE_ALARMS.items()}
    by_labels = {k: measured(logits, drawn, at, test) for k, drawn in updates.items() if len(drawn)}
    rows, most = [], Estimate()
    for k, drawn in updates.items():
        found = by_labels.get(k, {})
        numbers = fixed | {name: intervals.interval(*value, groups[name]) for name, value in found.items()}
        if k and found:
            (now, spread), (before, spread_before) = found["accuracy"], by_labels[0]["accuracy"]
            regained = intervals.difference_interval(now, before, spread, spread_before, test.equal_groups)
            numbers["accuracy_regained"] = most = regained
        why = {name: one.reason for name, one in numbers.items()} | few
        if not len(drawn):
            why["accuracy"] = f"B's training split has fewer than {k // 2} rows of a class"
        if not k:
            why["accuracy_regained"] = "no labels of B"
        if len(drawn) < 2:
            why["accuracy_sd"] = "fewer than two draws"
        if source_reference is None:
            why["auc_lost"] = "A's own test rows"
        row: dict[str, Any] = {"labels": k, "uses_target": k > 0, "draws": len(drawn), "n_groups": test.n_groups}
        if len(drawn):
            row["ece"], row["ece_by_chance"] = calibration_error(expit(logits[:, None] + drawn), test)
        rows.append(row | estimates(numbers) | {"accuracy_sd": _deviation(logits, drawn, test), "reason": reasons(why)})
    if source_reference is None:
        verdict = "in domain"
    else:
        on_a, groups_of_a = source_reference
        verdict = _verdict(on_a.interval(groups_of_a), fixed["auc_lost"], most)
    return [row | {"verdict": verdict} for row in rows]


def _groups(test: Evaluation) -> dict[str, float]:
    """How many groups each number rests on."""
    holding = [intervals.equal_groups(test.groups[test.labels == label]) for label in (0, 1)]
    ranked = dict.fromkeys(("auc", *(f"tpr_at_fpr_{percent}" for percent in FALSE_ALARMS)), test.effective_groups)
    alarms = {f"{rate}_at_source_fpr{p}": holding[rate == "fpr"] for rate in ("tpr", "fpr") for p in FALSE_ALARMS}
    return ranked | alarms | dict.fromkeys(("accuracy", "brier"), test.equal_groups)


def _deviation(logits: Floats, updates: Floats, test: Evaluation) -> float:
    if len(updates) < 2:
        return np.nan
    right = ((logits[:, None] + updates >= 0) == (test.labels[:, None] == 1)).mean(axis=0)
    return float(right.std(ddof=1))


def _verdict(in_domain: Estimate, lost: Estimate, regained: Estimate) -> str:
    """What these say: the AUC on A's own test rows, what it loses on B, and what the most labels of B regain."""
    if in_domain.low <= 0.5:
        return "no ranking in domain"
    clear = lost.low > MARGIN, regained.low > MARGIN  # NaN is not clear
    if any(clear):
        return {(True, False): "lost ranking", (False, True): "shifted threshold"}.get(clear, "both")
    return "holds" if max(lost.high, regained.high) < HOLDS and in_domain.low > 0.5 else "undecided"


def by_probe(calibration: pd.DataFrame) -> pd.DataFrame:
    """Out of domain, by kind of probe: mean accuracy at A's threshold and with labels of B, and the verdicts."""
    away, keys = calibration[~calibration["in_domain"]], "probe"
    plain = away[away["labels"] == 0].groupby(keys, sort=False)
    most = away[away["labels"] == away["labels"].max()].groupby(keys, sort=False)
    found = plain[["auc", "accuracy", "fpr_at_source_fpr5"]].mean()
    verdicts = plain["verdict"].value_counts().unstack(fill_value=0).reindex(columns=list(VERDICTS), fill_value=0)
    return found.assign(refitted=most["accuracy"].mean()).join(verdicts).reset_index()


def claim(means: pd.DataFrame, labels: int) -> str:
    """How accuracy falls out of domain, and what a few labels bring back."""
    told = [
        f"{row['accuracy']:.2f} for the {kinds.label(row['probe'])}"
        + ("" if pd.isna(row["refitted"]) else f" ({row['refitted']:.2f} with {labels} labels of B)")
        for row in means.to_dict("records")
    ]
    return (
        f"At A's threshold, accuracy out of domain is {', '.join(told)}." if told else "It takes two datasets to tell."
    )


def section(tables: Tables) -> Section:
    """What the report says of thresholds."""
    rows, means = tables["calibration"], by_probe(tables["calibration"])
    labels = int(rows["labels"].max())
    columns = [
        *TABLE.pick("probe", "auc", "accuracy"),
        Column("refitted", "number", "", heading=f"with {labels} labels of B"),
        Column("fpr_at_source_fpr5", "number", "", heading="false alarms at A's 5%"),
        *(Column(name, "integer", "", heading=heading) for name, heading in VERDICTS.items()),
    ]
    return Section(
        "calibration",
        "Does a threshold carry over?",
        claim(means, labels),
        "A monitor needs a threshold. Here it is A's; with 16 or 64 labels of B the bias is fitted again and the slope "
        "kept. Where that brings accuracy back, the ranking was fine and the threshold had moved.",
        TABLE.name,
        (),
        [Picture("calibration", "Accuracy on B at A's threshold and after refitting the bias, one panel an SAE.")],
        [
            look_up(means, "Out of domain: means, and how many pairs (space, A, B) have each verdict", columns),
        ],
    )


ANALYSIS = Analysis(TABLE, compute, by_space, params=("transfer",), section=section)
