"""Train x test heatmaps as what a template needs to write them as tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sae_transfer.probing import kinds
from sae_transfer.report.figures.heatmaps import colours
from sae_transfer.results import cells
from sae_transfer.results.cells import Grid, Value
from sae_transfer.results.headline import ALL, over_saes

MEASURES = {"auc": "AUC", "delta_residual": "AUC minus residual stream probe"}


@dataclass(frozen=True)
class Card:
    """One heatmap: what it is of, and its cells. `saes` are the choices of an SAE that lead to it."""

    saes: tuple[str, ...]
    column: str
    grid: Grid
    squares: list[list[dict[str, Any]]]


def cards(transfer: pd.DataFrame) -> list[Card]:
    """Every probe's heatmap, AUC and difference: the mean over SAEs first where there are several."""
    rows = cells.headline(transfer)
    rows = rows[(rows["probe"].map(kinds.role) == "probe") & rows["layer"].notna()]
    saes = rows.loc[rows["sae"] != "", ["sae", "layer"]].drop_duplicates()
    if len(saes) > 1:
        rows = pd.concat([mean_over_saes(rows), rows], ignore_index=True)
    return [
        _card(rows, space, key, column, _choices(saes, space, layer))
        for space, key, layer in rows[["space", "key", "layer"]].drop_duplicates().itertuples(index=False)
        for column in MEASURES
        if column == "auc" or key != "residual"
    ]


def mean_over_saes(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a (A, B, key): means over the SAEs. All are tested on the same rows, so their bounds are averaged too."""
    numbers = [f"{column}{end}" for column in MEASURES for end in ("", "_low", "_high")]
    parts = over_saes(rows).groupby(["key", "train", "test"], sort=False)
    found = parts.first().assign(**{name: parts[name].mean() for name in numbers}).reset_index()
    found["layer"] = pd.NA
    return found.assign(space=ALL, sae=ALL, feature_ids="")


def _choices(saes: pd.DataFrame, space: str, layer: Any) -> tuple[str, ...]:
    """The SAEs beside which a heatmap stands; a layer without one stands for itself."""
    if space == ALL or space in set(saes["sae"]):
        return (space,)
    return tuple(saes.loc[saes["layer"] == layer, "sae"]) or (space,)


def _card(rows: pd.DataFrame, space: str, key: str, column: str, saes: tuple[str, ...]) -> Card:
    grid = cells.grid_of(rows, space, key, column)
    squares = [
        [square(value, column, _hint(grid, i, j, column)) for j, value in enumerate(line)]
        for i, line in enumerate(grid.values)
    ]
    return Card(saes, column, grid, squares)


def square(value: Value, column: str, hint: str) -> dict[str, Any]:
    background, ink = colours(value.value, column)
    return {"value": value, "background": background, "ink": ink, "hint": hint}


def scale(column: str) -> Iterator[tuple[str, str, str]]:
    """(background, ink, number) of the steps of a colour scale."""
    low, step = (0.0, 0.1) if column == "auc" else (-1.0, 0.2)
    for i in range(11):
        yield (*colours(low + step * i, column), cells.number(low + step * i, 1, signed=column != "auc"))


def _hint(grid: Grid, i: int, j: int, column: str) -> str:
    """What pointing at a cell shows: the exact numbers, or why there are none."""
    value, a, b = grid.values[i][j], grid.trains[i], grid.tests[j]
    where = f"trained on {a.name} (n = {a.n}), tested on {b.name} (n = {grid.sizes[i][j]})"
    return f"{exact(value, MEASURES[column])}; {where}"


def exact(value: Value, what: str) -> str:
    if value.value != value.value:
        return f"{what} missing: {value.reason or 'not measured'}"
    if value.low != value.low:
        return f"{what} {value.value:.4f}, no interval: {value.reason or 'not measured'}"
    return f"{what} {value.value:.4f}, 95% interval {value.low:.4f} to {value.high:.4f}"
