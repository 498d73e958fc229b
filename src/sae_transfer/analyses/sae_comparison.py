"""SAEs against each other: transfer beside width, training objective, L0 and explained variance."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sae_transfer.analyses import feature_splitting
from sae_transfer.analyses.analysis import Analysis
from sae_transfer.core.space import Space
from sae_transfer.probing.evaluations import BootstrappedAUC, bootstrapped_auc, mean_auc
from sae_transfer.probing.kinds import selected
from sae_transfer.results import cells
from sae_transfer.results.schema import REASON, Column, Table, estimate, integers, texts
from sae_transfer.results.sections import Section, Tables, look_up
from sae_transfer.results.transfer_table import TRANSFER
from sae_transfer.stats import intervals
from sae_transfer.stats.intervals import Estimate, estimates

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

TABLE = Table(
    "saes",
    "one row a (SAE, probe, domain, B), and one for the mean over all B",
    (
        *TRANSFER.pick("layer", "sae"),
        *integers(width="features of the SAE"),
        *texts(objective="what the SAE was trained with: batchtopk, jumprelu, ..."),
        Column("l0", "number", "active features a row of B's prompts; for all B their mean", heading="L0", digits=1),
        Column("explained_variance", "number", "of B's activations; for all B the mean", heading="explained variance"),
        Column("dead", "number", "share of features that fire on none of B's prompts; for all B the mean"),
        *TRANSFER.pick("probe"),
        Column("domain", "text", "in_domain: A is B; ood: the mean over every other A", heading="tested"),
        *texts(test="B, or mean: the mean over all B"),
        *integers(n_pairs="how many (A, B) the AUC is the mean of"),
        *TRANSFER.pick("n_groups", "auc", "auc_low", "auc_high"),
        *texts(reference="the narrowest SAE on the layer"),
        *estimate("delta", "AUC less that of the reference, paired", heading="against the narrowest", signed=True),
        REASON,
    ),
)
EVERY = "mean"
KINDS = ("sparse_1", "sparse_n")

Areas = Mapping[tuple[str, str], BootstrappedAUC]  # by (A, B)


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of the SAEs on one layer."""
    saes = {sae.name: sae for sae in study.saes if sae.layer == study.space(part).layer}
    tests = {name: study.evaluation(name, "unseen") for name in study.datasets}
    rows = []
    for kind in KINDS if saes else ():
        areas: dict[str, Areas] = {}
        for name, sae in saes.items():
            probes = {a: selected(study.full_probes(sae, a), kind) for a in study.datasets}
            X = {b: study.rows(sae, b, "unseen").X for b in study.datasets}
            areas[name] = {(a, b): bootstrapped_auc(probes[a].score(X[b]), tests[b]) for a, b in product(probes, X)}
        first = min(saes.values(), key=lambda sae: study.health(sae, study.datasets[0]).width)  # of equals, the first
        found = comparison_rows(areas, first.name, {name: test.effective_groups for name, test in tests.items()})
        about = {"layer": study.space(part).layer, "probe": kind}
        rows += [about | health(study, saes[row["sae"]], row["test"]) | row for row in found]
    return TABLE.frame(rows)


def health(study: "Study", sae: Space, test: str) -> dict[str, Any]:
    """What is known of an SAE on B's prompts; for the mean over all B, the means."""
    found = [study.health(sae, name) for name in (study.datasets if test == EVERY else [test])]
    means = {key: float(np.mean([getattr(one, key) for one in found])) for key in ("l0", "explained_variance", "dead")}
    return {"width": found[0].width, "objective": study.directions(sae).objective} | means


def comparison_rows(areas: Mapping[str, Areas], first: str, n_groups: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """The rows of one kind of probe over the SAEs of one layer.

    Args:
        areas: by SAE: AUC, and AUC on resamples of B that all SAEs share.
        first: the SAE that the others are compared with.
        n_groups: of each dataset's test rows, as `intervals.interval` takes them for an AUC.
    """
    for sae, domain, test in product(areas, ("in_domain", "ood"), (*n_groups, EVERY)):
        pairs = [p for p in areas[sae] if (p[0] == p[1]) == (domain == "in_domain") and test in (p[1], EVERY)]
        row = {"sae": sae, "domain": domain, "test": test, "n_pairs": len(pairs), "reference": first}
        if not pairs:
            yield row | {"reason": "auc: no other dataset"}
            continue
        groups = intervals.groups_of_mean([n_groups[b] for b in dict.fromkeys(b for _, b in pairs)])
        own, base = (mean_auc([areas[each][pair] for pair in pairs]) for each in (sae, first))
        delta = Estimate(reason="the reference itself") if sae == first else own.minus(base, groups)
        yield row | {"n_groups": int(groups)} | estimates({"auc": own.interval(groups), "delta": delta})


def claim(mean: pd.DataFrame) -> str:
    """How each SAE's best feature transfers against that of the narrowest SAE on its layer."""
    rows = mean[(mean["probe"] == "sparse_1") & mean["delta"].notna()].to_dict("records")
    told = [
        f"{row['sae']} differs from {row['reference']} by {value.text} ({value.interval})"
        for row in rows
        if (value := cells.value(row, "delta"))
    ]
    return f"AUC of the best feature out of domain: {'; '.join(told)}." if told else "No layer has two SAEs to compare."


def section(tables: Tables) -> Section:
    """What the report says of SAEs, and of features that split."""
    saes, told = tables["saes"], []
    mean = saes[(saes["test"] == EVERY) & (saes["domain"] == "ood")]
    shown = "sae layer width objective l0 explained_variance probe auc delta".split()
    listed = [look_up(mean, "Out of domain: means over B", TABLE.pick(*shown))]
    if "splitting" in tables:
        told = feature_splitting.summarise(tables["splitting"])
    return Section(
        "saes",
        "Does the kind of SAE matter?",
        claim(mean),
        "Differences are paired over the test rows. Children of a feature are found on A's training rows in the other "
        "SAE of the layer, by how well they rebuild the feature's activation within either class. A feature is kept "
        "where one child rebuilds it, split where more are needed, lost where five are not enough.",
        TABLE.name,
        told,
        tables=listed,
    )


ANALYSIS = Analysis(
    TABLE, compute, lambda study: [layer.name for layer in study.layers], params=("transfer",), section=section
)
