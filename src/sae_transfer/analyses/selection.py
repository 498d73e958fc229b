"""Does the rule that chooses C and N decide? Every such probe under both rules, and how many settings tied."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sae_transfer.analyses.analysis import Analysis, by_space
from sae_transfer.core.arrays import Floats
from sae_transfer.probing import kinds
from sae_transfer.probing.evaluations import BootstrappedAUC, Evaluation, bootstrapped_auc, mean_auc
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.rows import Rows
from sae_transfer.results.schema import REASON, Column, Table, estimate, integers, texts
from sae_transfer.results.sections import Section, Tables, look_up
from sae_transfer.results.transfer_table import TRANSFER
from sae_transfer.stats import intervals, thresholds
from sae_transfer.stats.intervals import Estimate, estimates

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

OTHER = "other_rule"
WORDS = {"log_loss": "log loss", "auc": "AUC"}
TABLE = Table(
    "selection",
    "one row a (space, A, probe, rule): what a rule of selection chooses on A's training rows, and what it is worth",
    (
        *TRANSFER.pick("space", "train", "probe"),
        *texts(rule="log_loss: the lowest mean out-of-fold log loss; auc: the highest mean out-of-fold AUC"),
        Column("chosen", "flag", "whether it is the rule of this study"),
        *TRANSFER.pick("n_features", "C"),
        *integers(
            n_settings="how many pairs of C and N were tried",
            n_tied="how many lie within one standard error of the best, itself included",
        ),
        *estimate("in_domain_auc", "AUC on A's test rows", heading="AUC in domain"),
        *estimate("ood_auc", "mean AUC over every other B", heading="AUC out of domain"),
        *estimate("ood_delta", "`ood_auc` less that of the study's rule, paired", heading="difference", signed=True),
        Column("in_domain_brier", "number", "mean squared error of the probability on A's test rows"),
        Column("ood_accuracy", "number", "mean share of rows on the right side of p = 0.5 over every other B"),
        REASON,
    ),
)


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one space."""
    space = study.space(part)
    tests = {name: (study.rows(space, name, "unseen"), study.evaluation(name, "unseen")) for name in study.datasets}
    rows: list[dict[str, Any]] = []
    for train in study.datasets:
        probes = [probe for probe in study.full_probes(space, train) if probe.selected]
        (other,) = (probe for probe in probes if probe.kind == OTHER)
        own = next(probe for probe in probes if probe.family == other.family and probe.kind != OTHER)
        about = {"space": part, "train": train, "probe": own.kind}
        rows += [about | row for row in rule_rows((own, other), train, tests)]
    return TABLE.frame(rows)


def rule_rows(
    probes: Sequence[Probe], train: str, tests: Mapping[str, tuple[Rows, Evaluation]]
) -> Iterator[dict[str, Any]]:
    """What the probes of the study's rule and of the other one are worth, in this order.

    Args:
        probes: trained on A.
        train: the name of A.
        tests: by the name of B: its test rows in the probes' space, and those rows as probes are evaluated on them.
    """
    others = [name for name in tests if name != train]
    groups = {name: evaluation.effective_groups for name, (_, evaluation) in tests.items()}
    spread = intervals.groups_of_mean([groups[name] for name in others]) if others else 0.0
    reference: BootstrappedAUC | None = None
    for probe in probes:
        scores = {name: probe.score(rows.X) for name, (rows, _) in tests.items()}
        areas = {name: bootstrapped_auc(scores[name], evaluation) for name, (_, evaluation) in tests.items()}
        right = {name: _threshold(probe, scores[name], evaluation) for name, (_, evaluation) in tests.items()}
        ood = mean_auc([areas[name] for name in others]) if others else None
        missing = Estimate(reason="no other dataset")
        delta = ood.minus(reference, spread) if ood and reference else missing
        found = {
            "in_domain_auc": areas[train].interval(groups[train]),
            "ood_auc": ood.interval(spread) if ood else missing,
            "ood_delta": delta if reference else Estimate(reason="the study's rule itself"),
        }
        yield {
            "rule": probe.selection,
            "chosen": reference is None,
            **{name: getattr(probe, name) for name in ("n_features", "C", "n_settings", "n_tied")},
            **estimates(found),
            "in_domain_brier": right[train][1],
            "ood_accuracy": float(np.mean([right[name][0] for name in others])) if others else np.nan,
        }
        reference = ood


def _threshold(probe: Probe, scores: Floats, test: Evaluation) -> tuple[float, float]:
    """Accuracy and Brier score."""
    p = probe.probability(scores)
    return thresholds.accuracy(p, test.labels), thresholds.threshold_metrics(p, test.labels)["brier"]


def section(tables: Tables) -> Section:
    """What the report says of the rule of selection."""
    rows = tables["selection"]
    shown = "space train probe rule n_features C n_settings n_tied in_domain_auc ood_auc ood_delta in_domain_brier"
    return Section(
        "selection",
        "Does the rule that chooses C and N decide?",
        " ".join(_claim(str(probe), of) for probe, of in rows.groupby("probe", sort=False)),
        "C and N are chosen on A's training rows, out of fold. On easy data many settings have the same AUC, and the "
        "smallest of them is an accident. Log loss tells them apart.",
        TABLE.name,
        [_ties(str(probe), of) for probe, of in rows.groupby("probe", sort=False)],
        tables=[look_up(rows, "Both rules, by space and training set", TABLE.pick(*shown.split()))],
        aside=True,
    )


def _claim(probe: str, rows: pd.DataFrame) -> str:
    """The mean AUC out of domain under both rules."""
    own, other = (rows[rows["chosen"] == chosen] for chosen in (True, False))
    clear = int(((other["ood_delta_low"] > 0) | (other["ood_delta_high"] < 0)).sum())
    means = " and ".join(f"{of['ood_auc'].mean():.3f} by {WORDS[of['rule'].iloc[0]]}" for of in (own, other))
    return (
        f"The {kinds.label(probe)} has a mean AUC out of domain of {means}; the rule changes it clearly in {clear} of "
        f"{len(own)} cases."
    )


def _ties(probe: str, rows: pd.DataFrame) -> str:
    """In how many cases the choice was tied, by rule."""
    told = [
        f"by {WORDS[str(rule)]} in {int((of['n_tied'] > 1).sum())} of {len(of)} cases "
        f"(in {int((of['n_tied'] == of['n_settings']).sum())} all settings are)"
        for rule, of in rows.groupby("rule", sort=False)
    ]
    return f"{kinds.label(probe)}: other settings lie within one standard error of the best {', '.join(told)}."


ANALYSIS = Analysis(TABLE, compute, by_space, params=("transfer",), section=section)
