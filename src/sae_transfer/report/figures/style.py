"""What all figures share: type, colours, markers, the panels of a figure, and its legend."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from sae_transfer.probing import kinds
from sae_transfer.results import cells

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "svg.hashsalt": "sae-transfer",  # without it, ids are random and no two files are equal
}
OTHER_COLOURS = ("#009E73", "#CC79A7", "#7F7F7F", "#000000")
MARKERS = "osD^vPX*<>ph"


def legend(figure: Figure, handles: list[Line2D], title: str | None = None) -> None:
    columns = max(1, int(figure.get_figwidth() / 2.6))
    figure.legend(handles=handles, loc="outside lower center", fontsize=8, ncols=columns, title=title)


def hollow(label: str) -> Line2D:
    """A legend's entry for what hollow markers say."""
    return Line2D([], [], color="#555555", marker="o", markerfacecolor="none", linestyle="", label=label)


def tints(rows: pd.DataFrame) -> dict[str, str]:
    unnamed = iter(OTHER_COLOURS * len(rows))
    return {str(key): kinds.colour(str(key)) or next(unnamed) for key in rows["key"].unique()}


def panels(rows: pd.DataFrame) -> tuple[Figure, list[tuple[Axes, tuple[str, pd.DataFrame]]]]:
    """A figure with a titled panel for each SAE (two a row), and those panels with their rows."""
    parts = cells.panels(rows)
    figure, titled = grid_of([title for title, _ in parts])
    return figure, [(axes, part) for (axes, _), part in zip(titled, parts, strict=True)]


def grid_of(titles: list[str], height: float = 3.3) -> tuple[Figure, list[tuple[Axes, str]]]:
    """A figure with a panel of that height (inches) for each title, two a row, and those panels with their titles."""
    if not titles:
        return Figure(), []
    columns = min(len(titles), 2)
    lines = -(-len(titles) // columns)
    figure = Figure(
        figsize=(max(3.9 * columns, 6), height * lines + 0.8), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    )
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    panels = list(zip(grid, titles, strict=False))
    for axes in list(grid)[len(titles) :]:
        axes.set_visible(False)
        above = grid[len(titles) - columns] if len(titles) > columns else None
        if above is not None:
            above.xaxis.set_tick_params(labelbottom=True)  # it is the lowest panel of its column
    for axes, title in panels:
        axes.set_title(title, fontweight="bold")
    return figure, panels
