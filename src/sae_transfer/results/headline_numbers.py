"""The study in plain numbers: what results/metrics.json holds."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from sae_transfer.results import cells
from sae_transfer.stats import p_values

Numbers = dict[str, Any]  # space -> key -> name -> number, None where it is missing
NO_NUMBER = float("nan")


def summary(table: pd.DataFrame) -> Numbers:
    """The numbers of results/metrics.json for each space and kind of probe, rounded to 6 digits."""
    result: Numbers = {}
    for (space, key), rows in cells.headline(table).groupby(["space", "key"], sort=False):
        numbers = of_control(rows) if cells.is_control(str(key)) else of_transfer(rows)
        result.setdefault(str(space), {})[str(key)] = {name: _plain(number) for name, number in numbers.items()}
    return result


def of_transfer(rows: pd.DataFrame) -> dict[str, float]:
    home, away = rows[rows["in_domain"]], rows[~rows["in_domain"]]
    numbers = {
        "auc_in_domain": home["auc"].mean(),
        "auc_ood": away["auc"].mean(),
        "auc_ood_worst": away["auc"].min(),
        "cells_in_domain": int(home["auc"].notna().sum()),
        "cells_ood": int(away["auc"].notna().sum()),
    }
    if (rows["probe"] == "residual").all():
        return numbers
    compared, wins, losses = contest(away)
    _, sure_wins, sure_losses = contest(away, corrected=True)
    return numbers | {
        "cells_compared": compared,
        "share_beats_residual": wins / compared if compared else NO_NUMBER,
        "share_loses_to_residual": losses / compared if compared else NO_NUMBER,
        "share_beats_residual_corrected": sure_wins / compared if compared else NO_NUMBER,
        "share_loses_to_residual_corrected": sure_losses / compared if compared else NO_NUMBER,
    }


def of_control(rows: pd.DataFrame) -> dict[str, float]:
    return {
        "auc": rows["auc"].mean(),
        "auc_lowest": rows["auc"].min(),
        "auc_highest": rows["auc"].max(),
        "cells": int(rows["auc"].notna().sum()),
        "cells_whose_interval_holds_chance": int(((rows["auc_low"] <= 0.5) & (rows["auc_high"] >= 0.5)).sum()),
    }


def of_analyses(tables: Mapping[str, pd.DataFrame]) -> Numbers:
    """The headline numbers of the analyses: analysis -> space -> name -> number or, one level deeper, numbers.

    Args:
        tables: by the name of the file under results/, without its ending; those without rows are passed over.
    """
    found: Numbers = {}
    for name, (by, columns, chosen) in HEADLINES.items():
        rows = tables.get(name, pd.DataFrame())
        rows = chosen(rows) if len(rows) else rows
        if len(rows):
            means = rows.groupby(by, sort=False)[columns].mean()
            found[name] = _nested(
                {key: {c: _plain(v) for c, v in row.items()} for key, row in means.to_dict("index").items()}
            )
    return found


# By table: what its rows are grouped by, the columns whose means are told, and which rows count.
HEADLINES: dict[str, tuple[list[str], list[str], Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "bootstrap": (
        ["space", "probe"],
        ["auc_sd"],
        lambda t: cells.full_size(t[t["selected"] & ~t["in_domain"] & (t["resampling"] == "bootstrap")]),
    ),
    "oracle_gap": (["sae", "probe"], ["auc", "oracle_auc", "gap"], lambda t: t[t["oracle"] == "trained_on_target"]),
    "policies": (["sae", "probe", "policy"], ["auc", "regret"], lambda t: t),
    "predictors": (
        ["sae", "predictor"],
        ["spearman"],
        lambda t: t[(t["scope"] == "within") & (t["candidates"] == "features")],
    ),
    "calibration": (
        ["space", "probe"],
        ["accuracy", "ece", "fpr_at_source_fpr5"],
        lambda t: t[~t["in_domain"] & (t["labels"] == 0)],
    ),
    "length": (["space", "probe"], ["auc", "stratified_auc"], lambda t: t[t["train"] != t["test"]]),
}


def _nested(flat: Mapping[Any, Any]) -> Numbers:
    """{(a, b): x} as {a: {b: x}}."""
    found: Numbers = {}
    for keys, value in flat.items():
        place = found
        for key in keys[:-1]:
            place = place.setdefault(str(key), {})
        place[str(keys[-1])] = value
    return found


def contest(rows: pd.DataFrame, *, corrected: bool = False) -> tuple[int, int, int]:
    """How many cells have a paired interval, and in how many the probe beats the residual probe or loses to it.

    A probe beats another when the 95% interval of their paired difference lies above 0 and, corrected for the number of
    the rows by Holm's method, p < 0.05.
    """
    low, high = rows["delta_residual_low"], rows["delta_residual_high"]
    wins, losses = low > 0, high < 0
    if corrected:
        sure = p_values.holm(rows["delta_residual_p"]) < 0.05
        wins, losses = wins & sure, losses & sure
    return int(low.notna().sum()), int(wins.sum()), int(losses.sum())


def _plain(number: float) -> float | int | None:
    if number != number:
        return None
    return number if isinstance(number, int) else round(float(number), 6)
