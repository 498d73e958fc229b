"""The study in one table and in about a dozen numbers: results/headline.csv and results/metrics.json."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer.results import cells
from sae_transfer.results.schema import REASON, Column, Table, estimate, integers, numbers, texts
from sae_transfer.results.sections import Tables
from sae_transfer.stats import intervals, p_values
from sae_transfer.stats.intervals import Estimate, estimates

ALL = "all"
MIN_DOMAINS = 3  # below, an interval over datasets says nothing
TABLE = Table(
    "headline",
    "one row a (space, kind of probe): means over the cells of transfer.csv at full size, under B's own template",
    (
        *texts(
            space="where the probe lives; all: the mean over the SAEs, with the residual probes of each SAE's layer",
            key="the kind of probe, with its family where the kind has several",
        ),
        *estimate("auc_in_domain", "mean AUC where A is B", heading="AUC in domain"),
        *estimate("auc_ood", "mean AUC where A is another dataset: first over A, then over B", heading="out of domain"),
        *estimate("auc_lost", "AUC out of domain less AUC in domain", heading="difference", signed=True),
        *estimate(
            "delta_residual",
            "mean of `delta_residual` out of domain",
            heading="minus residual, out of domain",
            signed=True,
        ),
        *numbers(
            auc_ood_general_low="lower bound of the mean over datasets like these: Student's 95% interval over B",
            auc_ood_general_high="upper bound of the same",
            delta_residual_general_low="lower bound of `delta_residual` over datasets like these",
            delta_residual_general_high="upper bound of the same",
        ),
        Column("auc_ood_worst", "number", "the lowest AUC out of domain", heading="worst"),
        *texts(worst_space="the space of that cell", worst_train="its A", worst_test="its B"),
        *numbers(auc_lowest="the lowest AUC of all cells", auc_highest="the highest AUC of all cells"),
        *integers(
            cells_in_domain="cells in domain",
            cells_ood="cells out of domain",
            cells_compared="cells out of domain with an interval of `delta_residual`",
            won="of these, cells whose interval lies above 0",
            lost="of these, cells whose interval lies below 0",
            won_corrected="cells won with p < 0.05 after Holm's correction over the cells compared",
            lost_corrected="cells lost with p < 0.05 after the same correction",
            cells_with_interval="all cells with an interval of the AUC",
            cells_at_chance="of these, cells whose interval contains 0.5",
        ),
        REASON,
    ),
)


def headline(transfer: pd.DataFrame) -> pd.DataFrame:
    """The table: the mean over all SAEs first, then every space."""
    rows = cells.headline(transfer)
    return TABLE.frame(
        {"space": space, "key": key} | _summary(part)
        for space, of_space in [(ALL, over_saes(rows)), *rows.groupby("space", sort=False)]
        for key, part in of_space.groupby("key", sort=False)
    )


def over_saes(rows: pd.DataFrame) -> pd.DataFrame:
    """Each SAE's rows with those of its layer, so that a residual probe counts once for each SAE beside it."""
    layered = rows[rows["layer"].notna()]
    saes = layered.loc[layered["sae"] != "", ["sae", "layer"]].drop_duplicates()
    if not len(saes):
        return layered.copy()
    of_sae = [
        layered[(layered["sae"] == sae) | ((layered["sae"] == "") & (layered["layer"] == layer))]
        for sae, layer in saes.itertuples(index=False)
    ]
    found: pd.DataFrame = pd.concat(of_sae, ignore_index=True)
    return found


def _summary(rows: pd.DataFrame) -> dict[str, Any]:
    home, away = rows[rows["in_domain"]], rows[~rows["in_domain"]]
    found = {"auc_in_domain": mean_of(home, "auc"), "auc_ood": mean_of(away, "auc")}
    found["auc_lost"] = difference(found["auc_ood"], found["auc_in_domain"])
    found["delta_residual"] = mean_of(away, "delta_residual")
    general = {name: over_domains(away, name) for name in ("auc", "delta_residual")}
    return (
        estimates(found)
        | {f"auc_ood_general_{end}": bound for end, bound in zip(("low", "high"), general["auc"], strict=True)}
        | {f"delta_residual_general_{e}": b for e, b in zip(("low", "high"), general["delta_residual"], strict=True)}
        | _worst(away)
        | {"auc_lowest": rows["auc"].min(), "auc_highest": rows["auc"].max()}
        | {"cells_in_domain": int(home["auc"].count()), "cells_ood": int(away["auc"].count())}
        | _contest(away)
        | _at_chance(rows)
    )


def mean_of(rows: pd.DataFrame, column: str) -> Estimate:
    """The mean of a column of cells over A, then over B, with its 95% interval for these datasets.

    Test sets are independent, and cells with the same B are not: the distances to their bounds are averaged as if they
    were perfectly correlated, which is the worst case. Over test sets the squared distances add up, each side by itself
    (MOVER: Zou and Donner, Statistics in Medicine 27, 2008).
    """
    rows = rows.dropna(subset=[column])
    if not len(rows):
        return Estimate(reason="no such cell")
    value, low, high = (rows[name] for name in (column, f"{column}_low", f"{column}_high"))
    of_test = pd.DataFrame({"value": value, "below": value - low, "above": high - value}).groupby(rows["test"])
    means = of_test.mean()
    if low.isna().any():
        return Estimate(float(means["value"].mean()), reason="a cell has no interval")
    below, above = (float(np.sqrt((means[side] ** 2).sum())) / len(means) for side in ("below", "above"))
    mean = float(means["value"].mean())
    return Estimate(mean, mean - below, mean + above)


def difference(one: Estimate, other: Estimate) -> Estimate:
    """`one` - `other` as if they were independent, each side's distances by MOVER; too wide where they share rows."""
    if reason := one.reason or other.reason:
        return Estimate(one.value - other.value, reason=reason)
    value = one.value - other.value
    below = float(np.hypot(one.value - one.low, other.high - other.value))
    return Estimate(value, value - below, value + float(np.hypot(one.high - one.value, other.value - other.low)))


def over_domains(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    """The bounds of Student's interval of the mean, with the test set as the unit; NaN for fewer than 3 test sets."""
    means = rows.groupby("test")[column].mean().dropna()
    if len(means) < MIN_DOMAINS:
        return np.nan, np.nan
    found = intervals.mean_interval(means)
    return max(found.low, 0.0 if column == "auc" else -1.0), min(found.high, 1.0)


def _worst(away: pd.DataFrame) -> dict[str, Any]:
    there = away.dropna(subset=["auc"])
    if not len(there):
        return {"worst_space": "", "worst_train": "", "worst_test": ""}
    worst = there.sort_values("auc", kind="stable").iloc[0]
    return {"auc_ood_worst": worst["auc"]} | {f"worst_{name}": worst[name] for name in ("space", "train", "test")}


def _contest(away: pd.DataFrame) -> dict[str, int]:
    """In how many cells a probe beats the residual probe or loses to it, plain and after Holm's correction."""
    low, high = away["delta_residual_low"], away["delta_residual_high"]
    sure = p_values.holm(away["delta_residual_p"]) < 0.05
    counted = {"cells_compared": low.notna(), "won": low > 0, "lost": high < 0}
    counted |= {"won_corrected": (low > 0) & sure, "lost_corrected": (high < 0) & sure}
    return {name: int(those.sum()) for name, those in counted.items()}


def _at_chance(rows: pd.DataFrame) -> dict[str, int]:
    at_chance = (rows["auc_low"] <= 0.5) & (rows["auc_high"] >= 0.5)
    return {"cells_with_interval": int(rows["auc_low"].count()), "cells_at_chance": int(at_chance.sum())}


def of_all(table: pd.DataFrame, key: str, space: str = ALL) -> dict[Any, Any] | None:
    """The row of a kind of probe, over all SAEs unless a space is named; None where there is none."""
    rows = table[(table["space"] == space) & (table["key"] == key)]
    return rows.iloc[0].to_dict() if len(rows) else None


def metrics(tables: Tables) -> dict[str, float]:
    """About a dozen numbers by the names that `dvc metrics show` prints; a number that is missing is left out."""
    return {name: round(float(value), 6) for name, value in _metrics(tables) if pd.notna(value)}


def _metrics(tables: Tables) -> Iterator[tuple[str, Any]]:
    table = tables["headline"]
    rows = {key: row for key in ("residual", "sparse_1", "sparse_n") if (row := of_all(table, key))}
    yield from ((f"in_domain.{key}", row["auc_in_domain"]) for key, row in rows.items())
    for key, row in rows.items():
        yield f"out_of_domain.{key}", row["auc_ood"]
        if key != "residual":
            yield f"out_of_domain.{key}_low", row["auc_ood_low"]
    if words := of_all(table, "text_tfidf", "text"):
        yield "out_of_domain.words", words["auc_ood"]
    if (row := rows.get("sparse_1")) and row["cells_compared"]:
        yield "against_residual.sparse_1_won", row["won"] / row["cells_compared"]
        yield "against_residual.sparse_1_lost", row["lost"] / row["cells_compared"]
    if len(gaps := tables.get("oracle_gap", pd.DataFrame())):
        chosen = gaps[(gaps["oracle"] == "trained_on_target") & (gaps["probe"] == "sparse_1")]
        yield "oracle_gap.sparse_1", chosen["gap"].mean()
    if control := of_all(table, "shuffled_labels_sparse_1"):
        yield "control.shuffled_labels", control["auc_ood"]
