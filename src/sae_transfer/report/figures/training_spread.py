"""How much another training sample would move each number."""

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sae_transfer.probing import kinds
from sae_transfer.report.figures.style import MARKERS, STYLE, hollow, legend, panels, tints
from sae_transfer.results import cells


@matplotlib.rc_context(STYLE)
def training_spread(spread: pd.DataFrame) -> Figure:
    """Each probe's AUC on B against its spread over bootstraps of A's training groups; one panel an SAE.

    Filled markers are in domain, hollow ones out of domain. The spread is a standard deviation.

    Args:
        spread: columns of `analyses.stability.BOOTSTRAP`.
    """
    rows = cells.full_size(spread[(spread["resampling"] == "bootstrap") & spread["selected"]])
    rows = rows.assign(key=rows["probe"])
    figure, parts = panels(rows)
    tint = tints(rows)
    for axes, (_, part) in parts:
        for marker, (key, colour) in zip(MARKERS, tint.items(), strict=False):
            for home, face in ((True, colour), (False, "none")):
                some = part[(part["key"] == key) & (part["in_domain"] == home)]
                axes.plot(some["auc"], some["auc_sd"], marker, color=colour, markerfacecolor=face, markersize=5)
        axes.set(xlabel="AUC", ylabel="standard deviation over samples", ylim=(-0.01, None))
        axes.label_outer()
        axes.grid(axis="y", color="#eeeeee")
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=kinds.label(key))
        for marker, (key, colour) in zip(MARKERS, tint.items(), strict=False)
    ]
    legend(figure, [*handles, hollow("out of domain")])
    return figure
