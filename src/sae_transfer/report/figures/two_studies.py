"""Two studies beside one another."""

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sae_transfer.probing import kinds
from sae_transfer.report.figures.style import MARKERS, STYLE, grid_of, hollow, legend, tints
from sae_transfer.results import cells


@matplotlib.rc_context(STYLE)
def two_studies(table: pd.DataFrame, x: str, y: str) -> Figure:
    """Every cell's AUC in one study against its AUC in the other, one panel a space.

    Args:
        table: as `comparison.compare` gives it. Filled markers: the interval of the difference excludes 0.
        x: the first study's name.
        y: the other's.
    """
    shown = table[~table["key"].map(cells.is_control)]
    figure, panels = grid_of([str(space) for space in shown["space"].unique()])
    tint = tints(shown)
    low = min(0.4, float(shown[["auc_x", "auc_y"]].to_numpy().min()) - 0.02)
    for axes, space in panels:
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle=":", zorder=0)
        for marker, (key, colour) in zip(MARKERS, tint.items(), strict=False):
            part = shown[(shown["space"] == space) & (shown["key"] == key)]
            differs = (part["difference_low"] > 0) | (part["difference_high"] < 0)
            for rows, face in ((part[differs], colour), (part[~differs], "none")):
                axes.plot(rows["auc_x"], rows["auc_y"], marker, color=colour, markerfacecolor=face, markersize=5)
        axes.set(xlim=(low, 1.01), ylim=(low, 1.01), xlabel=f"AUC in {x}", ylabel=f"AUC in {y}", aspect="equal")
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=kinds.label(key))
        for marker, (key, colour) in zip(MARKERS, tint.items(), strict=False)
    ]
    handles.append(hollow("interval of the difference contains 0, or none"))
    legend(figure, handles)
    return figure
