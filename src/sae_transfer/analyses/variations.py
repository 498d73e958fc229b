"""How much probes move when the same rows are asked under another template.

Within one dataset: probes trained under its own template, under each variation, or under all of them pooled; each
tested on the same test rows under every template, so that differences are paired. Transfer to other datasets'
variations is in the transfer table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sae_transfer.analyses.analysis import Analysis, by_space
from sae_transfer.core.arrays import Floats
from sae_transfer.core.errors import UserError
from sae_transfer.core.space import Space
from sae_transfer.probing import kinds
from sae_transfer.probing.evaluations import Evaluation
from sae_transfer.probing.kinds import selected
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.residual_probes import residual
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import sparse_probes
from sae_transfer.results import cells
from sae_transfer.results.schema import REASON, Column, Table, estimate, texts
from sae_transfer.results.sections import Section, Tables, look_up
from sae_transfer.results.transfer_table import TRANSFER
from sae_transfer.stats import intervals, roc, thresholds
from sae_transfer.stats.cosines import cosine
from sae_transfer.stats.intervals import Estimate, estimates, reasons

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

PAIRED = "less that of the probe trained and tested under the dataset's own template, on the same resamples of groups"
TABLE = Table(
    "variations",
    "one row a (space, dataset, training template, test template, probe)",
    (
        *TRANSFER.pick("layer", "space", "sae"),
        *texts(dataset="the dataset of the training and of the test rows"),
        Column("train_variation", "text", "the template trained under; pooled: all of them", heading="trained under"),
        Column("test_variation", "text", "the template tested under", heading="tested under"),
        *TRANSFER.pick("probe", "n_features", "feature_ids", "C", "n_train", "n_test", "n_groups"),
        *TRANSFER.pick("auc", "auc_low", "auc_high", "accuracy", "accuracy_low", "accuracy_high"),
        *estimate("delta_auc", f"AUC {PAIRED}", heading="change", signed=True),
        *estimate("delta_accuracy", f"accuracy {PAIRED}", heading="change", signed=True),
        Column("same_best", "flag", "of sparse_1: whether the same feature is best as under the own template"),
        Column(
            "jaccard",
            "number",
            "of the features chosen and those under the own template: the top K of sparse_1; of sparse_n as many as "
            "the probe chosen under the own template has",
            heading="same features (Jaccard)",
        ),
        Column(
            "cosine_to_default",
            "number",
            "of a residual probe's weights, on the raw stream, with those trained under the own template",
        ),
        REASON,
    ),
)
POOLED = "pooled"
KINDS = ("residual", "sparse_1", "sparse_n")


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one space."""
    space, rows = study.space(part), []
    for dataset in study.datasets:
        templates = study.templates(dataset)
        if len(templates) == 1:
            continue
        fitted: dict[str, list[Probe] | str] = {templates[0]: study.full_probes(space, dataset)}
        fitted |= {template: _fit(study, space, dataset, template) for template in templates[1:]}
        fitted[POOLED] = _fit(study, space, dataset, *templates)
        tests = {template: study.rows(space, dataset, "test", template) for template in templates}
        about = {"layer": space.layer, "space": space.name, "sae": space.sae, "dataset": dataset}
        rows += [about | row for row in variation_rows(fitted, tests, study.evaluation(dataset))]
    return TABLE.frame(rows)


def _fit(study: "Study", space: Space, dataset: str, *templates: str) -> list[Probe] | str:
    """The probes trained under some templates, copies of a row in one fold, or why none could be."""
    train, method = study.rows(space, dataset, "train", *templates), residual if space.is_residual else sparse_probes
    try:
        fitted = method(train, study.seed, study.params.probe.at(space.name, dataset))
    except UserError as error:  # such as too few features that fire: one template's matter, not the study's
        return str(error)
    return [replace(probe, n_train=len(train)) for probe in fitted]


def variation_rows(
    fitted: Mapping[str, Sequence[Probe] | str], tests: Mapping[str, Rows], test: Evaluation
) -> Iterator[dict[str, Any]]:
    """What every probe is worth under every template.

    Args:
        fitted: by training template, the dataset's own first: the probes of one method, or why it could not fit.
        tests: by test template, the dataset's own first: the same rows in the same order.
        test: those rows' labels, groups and bootstrap weights.

    Raises:
        ValueError: under the own template there are no probes.
    """
    own = next(iter(fitted.values()))
    if isinstance(own, str):
        raise ValueError(own)
    for kind in [kind for kind in KINDS if any(probe.kind == kind for probe in own)]:
        baseline = None
        for (train_variation, probes), (test_variation, rows) in product(fitted.items(), tests.items()):
            where = {"train_variation": train_variation, "test_variation": test_variation, "probe": kind}
            row = where | {"n_test": len(rows), "n_groups": test.n_groups}
            if isinstance(probes, str):
                yield row | {"reason": reasons({"auc": probes})}
                continue
            probe = selected(probes, kind)
            measured = _measured(probe, rows, test)
            about = {"n_features": probe.n_features, "feature_ids": probe.feature_text}
            about |= {"C": probe.C, "n_train": probe.n_train}
            yield row | about | _numbers(measured, baseline, test) | _sameness(own, probes, kind)
            baseline = baseline or measured


Measured = dict[str, tuple[float, Floats]]  # the number on the test rows, and on each resample [R]


def _measured(probe: Probe, rows: Rows, test: Evaluation) -> Measured:
    scores = probe.score(rows.X)
    p = probe.probability(scores)
    return {
        "auc": (roc.auc(scores, test.labels), roc.weighted_auc(scores, test.labels, test.weights)),
        "accuracy": (thresholds.accuracy(p, test.labels), thresholds.weighted_accuracy(p, test.labels, test.weights)),
    }


def _numbers(measured: Measured, baseline: Measured | None, test: Evaluation) -> dict[str, Any]:
    groups = {"auc": test.effective_groups, "accuracy": test.equal_groups}
    found = {name: intervals.interval(value, spread, groups[name]) for name, (value, spread) in measured.items()}
    for name, (value, spread) in measured.items():
        found[f"delta_{name}"] = Estimate(reason="what the others are compared with")
        if baseline:
            first, first_spread = baseline[name]
            found[f"delta_{name}"] = intervals.difference_interval(value, first, spread, first_spread, groups[name])
    return estimates(found)


def _sameness(own: Sequence[Probe], probes: Sequence[Probe], kind: str) -> dict[str, Any]:
    """How alike the probes are to those trained under the dataset's own template."""
    first, now = selected(own, kind), selected(probes, kind)
    if kind == "residual":
        return {"cosine_to_default": float(cosine(first.weights[None], now.weights[None])[0, 0])}
    n = 1 if kind == "sparse_1" else len(first.weights)
    a, b = (_features(each, kind, n) for each in (own, probes))
    row: dict[str, Any] = {"jaccard": len(a & b) / len(a | b) if a and b else np.nan}
    if kind == "sparse_1":
        row["same_best"] = _features([first], kind, n) == _features([now], kind, n)
    return row


def _features(probes: Sequence[Probe], kind: str, n: int) -> set[int]:
    """The features of all probes of the kind that have n of them."""
    of_kind = [probe.feature_ids for probe in probes if probe.kind == kind and len(probe.weights) == n]
    return {int(feature) for ids in of_kind if ids is not None for feature in ids}


def moved(variations: pd.DataFrame) -> pd.DataFrame:
    """By dataset and kind of probe trained under the dataset's own template: how it moves under the others."""
    own = variations["train_variation"] == variations.groupby("dataset")["train_variation"].transform("first")
    other = own & (variations["test_variation"] != variations["train_variation"])
    rows = variations[other].dropna(subset=["delta_auc"])
    return (
        rows.assign(lower=rows["delta_auc_high"] < 0)
        .groupby(["dataset", "probe"], sort=False)
        .agg(
            delta_auc=("delta_auc", "mean"),
            worst=("delta_auc", "min"),
            delta_accuracy=("delta_accuracy", "mean"),
            lower=("lower", "sum"),
            n=("delta_auc", "size"),
        )
        .reset_index()
    )


def section(tables: Tables) -> Section:
    """What the report says of prompt templates."""
    means = moved(tables["variations"])
    told = [
        f"{cells.number(row['delta_auc'], signed=True)} ({row['dataset']}, {kinds.label(row['probe'])})"
        for row in means.to_dict("records")
    ]
    columns = (
        *TABLE.pick("dataset", "probe"),
        Column("delta_auc", "number", "", heading="change of AUC", signed=True),
        Column("worst", "number", "", heading="worst", signed=True),
        Column("delta_accuracy", "number", "", heading="change of accuracy", signed=True),
        Column("lower", "integer", "", heading="AUC surely lower in"),
        Column("n", "integer", "", heading="of (space, template)"),
    )
    return Section(
        "variations",
        "Does the wording of the prompt matter?",
        f"Under another template the AUC in domain moves by {', '.join(told)} on average."
        if told
        else "No probe was tested under another template.",
        "The same rows under other templates: trained under one of them or under all (pooled), tested under each.",
        TABLE.name,
        tables=[
            look_up(means, "Trained under the dataset's own template, tested under the others: means", columns),
        ],
        aside=True,
    )


ANALYSIS = Analysis(TABLE, compute, by_space, section=section)
