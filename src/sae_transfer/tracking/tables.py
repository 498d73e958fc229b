"""The tables that runs carry as artifacts, and the study's tables as tracking reads them. Pure functions."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer import cells
from sae_transfer.probes import Ints, Probe
from sae_transfer.records import UserError
from sae_transfer.tracking.contents import leaves

FEATURE_COLUMNS = "feature rank cv_auc density scale bias".split()
"""Of a feature table: its id; place in the ranking on A; cross-validated AUC on A of the feature alone; share of A's
training rows on which it fires; weight and bias of its 1-sparse probe. Then `weight` in the N-sparse probe (for one),
`auc on <B>` of the feature alone, and `link`, where Neuronpedia has a page."""


def check_numbers(numbers: Any, path: Path) -> None:
    """That results/metrics.json holds names and numbers, nested as they may be.

    Raises:
        UserError: it does not; another version wrote it.
    """
    values = [value for _, value in leaves(numbers)] if isinstance(numbers, Mapping) else [""]
    if not all(value is None or isinstance(value, int | float) for value in values):
        raise UserError(f"{path}: not names and numbers; another version wrote it: `dvc repro -s -f report`")


def feature_tables(
    table: pd.DataFrame,
    probes: Callable[[str, str], list[Probe]],
    fires: Callable[[str, str], Ints],
    link: Callable[[str, int], str],
) -> dict[tuple[str, str, str], pd.DataFrame]:
    """For each (space, A, key) whose probe reads features of an SAE: what those features are. Baselines are left out.

    Args:
        table: the transfer table.
        probes: the probes saved for a space and an A.
        fires: [d_sae] number of A's training rows on which each feature fires, for an SAE and an A.
        link: the web page of a feature of an SAE, or nothing.
    """
    single = _alone(table)
    rows = cells.headline(cells.without_baselines(table))
    rows = rows[(rows["sae"] != "") & (rows["feature_ids"] != "")].drop_duplicates(["space", "train", "key"])
    found = {}
    for row in rows.to_dict("records"):
        space, train, key = row["space"], row["train"], row["key"]
        if cells.is_control(key):
            continue
        alone = single.get((space, train), pd.DataFrame(columns=["feature", "rank", "cv_auc"]))
        saved = [probe for probe in probes(space, train) if probe.n_train == row["n_train"]]
        listed = alone["feature"].tolist() if key == "sparse_1" else [int(f) for f in row["feature_ids"].split()]
        shown = pd.DataFrame({"feature": listed}).merge(alone, on="feature", how="left")
        shown.insert(3, "density", fires(space, train)[listed] / row["n_train"])
        shown = _with_weights(shown, saved, row)
        shown["link"] = [link(space, feature) for feature in listed]
        found[space, train, key] = shown if shown["link"].any() else shown.drop(columns="link")
    return found


def _alone(table: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    """By (space, A): `feature, rank, cv_auc` and `auc on <B>` for every B, of the 1-sparse probes, best first."""
    rows = cells.full(cells.own_template(table[table["probe"] == "sparse_1"]))
    found = {}
    for place, part in rows.groupby(["space", "train"], sort=False):
        areas = part.pivot_table(index="rank", columns="test", values="auc", sort=False).add_prefix("auc on ")
        first = part.drop_duplicates("rank").set_index("rank")
        listed = pd.DataFrame({"feature": first["feature_ids"].astype(int), "cv_auc": first["cv_auc"]})
        listed = listed.join(areas).sort_index().reset_index()
        found[place] = listed[["feature", "rank", "cv_auc", *areas.columns]]
    return found


def _with_weights(shown: pd.DataFrame, saved: Iterable[Probe], row: Mapping[Any, Any]) -> pd.DataFrame:
    """Weight and bias of each feature's own probe; for a probe on several features their weights in it as well."""
    saved = list(saved)
    own = {_ids(probe)[0]: probe for probe in saved if probe.kind == "sparse_1"}
    singles = [own.get(feature) for feature in shown["feature"]]
    shown.insert(4, "scale", [np.nan if probe is None else float(probe.weights[0]) for probe in singles])
    shown.insert(5, "bias", [np.nan if probe is None else probe.bias for probe in singles])
    together = [probe for probe in saved if probe.kind == row["probe"] and _ids(probe) == shown["feature"].tolist()]
    if row["key"] != "sparse_1" and together:
        weights = dict(zip(_ids(together[0]), together[0].weights, strict=True))
        shown.insert(6, "weight", [weights.get(feature, np.nan) for feature in shown["feature"]])
    return shown


def _ids(probe: Probe) -> list[int]:
    return [] if probe.feature_ids is None else [int(feature) for feature in probe.feature_ids]
