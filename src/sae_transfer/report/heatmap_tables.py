"""Train x test heatmaps as what a template needs to write them as tables."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from sae_transfer.probing import kinds
from sae_transfer.report.figures.heatmaps import colours
from sae_transfer.results import cells
from sae_transfer.results.cells import Grid, Value

WITHOUT_LAYER = ("text", "verbal")  # spaces beside those of the layers and SAEs


def heatmaps(table: pd.DataFrame, column: str) -> Iterator[dict[str, Any]]:
    """Titled rows of heatmaps: for each SAE its probes beside its layer's residual probe, then the other baselines."""
    shown_pairs = [(space, key) for space, key in cells.pairs(table) if not cells.is_control(key)]
    layers = table[table["sae"] == ""].drop_duplicates("layer").set_index("layer")["space"]
    against = [] if column != "auc" else ["residual"]
    for sae, layer in table[table["sae"] != ""].drop_duplicates("sae")[["sae", "layer"]].itertuples(index=False):
        shown = [(layers[layer], key) for key in against] + [kind for kind in shown_pairs if kind[0] == sae]
        title, spaces = f"{sae}, layer {layer}", (layers[layer], sae)
        yield {"title": title, "spaces": spaces, "grids": [_heatmap(table, *kind, column) for kind in shown]}
    shown_already = {"residual"} if (table["sae"] != "").any() or column != "auc" else set()
    others = [kind for kind in shown_pairs if kind[0] in set(layers) and kind[1] not in shown_already]
    if others:
        grids = [_heatmap(table, *kind, column) for kind in others]
        yield {"title": "Residual stream baselines", "spaces": (), "grids": grids}


def beside(numbers: dict[str, dict[str, Any]], spaces: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """(key, its numbers) of the baselines that stand beside the heatmaps of an SAE and its layer."""
    if not spaces:
        return []
    placed = [item for space in (*spaces, *WITHOUT_LAYER) for item in numbers.get(space, {}).items()]
    return [(key, n) for key, n in placed if key.startswith((*kinds.kinds(role="baseline"), "mean_difference"))]


def _heatmap(table: pd.DataFrame, space: str, key: str, column: str) -> dict[str, Any]:
    grid = cells.grid(table, space, key, column)
    squares = [
        [square(value, column, _hint(grid, i, j, column)) for j, value in enumerate(row)]
        for i, row in enumerate(grid.values)
    ]
    return {"grid": grid, "squares": squares, "file": f"{'heatmap' if column == 'auc' else 'difference'}_{space}_{key}"}


def square(value: Value, column: str, hint: str) -> dict[str, Any]:
    background, ink = colours(value.value, column)
    return {"value": value, "background": background, "ink": ink, "hint": hint}


def _hint(grid: Grid, i: int, j: int, column: str) -> str:
    """What pointing at a cell shows: the exact numbers, or why there are none."""
    value, a, b = grid.values[i][j], grid.trains[i], grid.tests[j]
    what = "AUC" if column == "auc" else "AUC minus residual stream probe"
    return f"{exact(value, what)}; trained on {a.name} (n = {a.n}), tested on {b.name} (n = {grid.sizes[i][j]})"


def exact(value: Value, what: str) -> str:
    if value.value != value.value:
        return f"{what} missing: {value.reason or 'not measured'}"
    if value.low != value.low:
        return f"{what} {value.value:.4f}, no interval: {value.reason or 'not measured'}"
    return f"{what} {value.value:.4f}, 95% interval {value.low:.4f} to {value.high:.4f}"
