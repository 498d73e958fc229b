"""AUC of SAE probes by the number of features."""

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from sae_transfer.report.figures.style import STYLE, legend, panels
from sae_transfer.results import cells


@matplotlib.rc_context(STYLE)
def auc_by_n(table: pd.DataFrame) -> Figure:
    """AUC against the number of features, in domain and out of domain: the mean over A, and a thin line for each A."""
    rows = cells.full(cells.own_template(cells.keyed(table)))
    figure, parts = panels(rows)
    lowest, sizes = 0.4, sorted(rows.loc[rows["key"].isin(["sparse_1", "sparse_n"]), "n_features"].unique())
    lines: Any = (("in domain", True, "#0072B2", "-"), ("out of domain", False, "#D55E00", "--"))
    for axes, (_, part) in parts:
        sparse = part[(part["key"] == "sparse_n") | ((part["key"] == "sparse_1") & (part["rank"] == 1))]
        control = part[part["key"].str.startswith("shuffled_labels_sparse")]
        if len(control):
            low, high = control["auc_low"].mean(), control["auc_high"].mean()
            axes.axhspan(low, high, color="#dddddd", linewidth=0, zorder=0)
        for _, home, colour, style in lines:
            wanted = sparse[sparse["in_domain"] == home]
            by_n = wanted.pivot_table(index="n_features", columns="train", values="auc", sort=True)
            lowest = min(lowest, by_n.min(axis=None))
            axes.plot(by_n.index, by_n, color=colour, linestyle=style, linewidth=0.7, alpha=0.4)
            mean_line = by_n.dropna().mean(axis=1)  # ends where an A has fewer features: others would shift the mean
            axes.plot(mean_line.index, mean_line, color=colour, linestyle=style, linewidth=2, marker="o", markersize=4)
            reference = part.loc[(part["key"] == "residual") & (part["in_domain"] == home), "auc"]
            axes.axhline(reference.mean(), color="#000000", linestyle=style, linewidth=1, zorder=3)  # not hidden at 1
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(sizes))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="number of features N", ylabel="AUC")
        axes.label_outer()
    for axes, _ in parts:
        axes.set_ylim(lowest - 0.02, 1.02)
    handles = [
        Line2D([], [], color=colour, linestyle=style, marker="o", linewidth=2, label=f"SAE probe, {label}")
        for label, _, colour, style in lines
    ]
    handles += [
        Line2D([], [], color="#000000", linestyle=style, linewidth=1, label=f"residual stream probe, {label}")
        for label, _, _, style in lines
    ]
    handles.append(Line2D([], [], color="#888888", linewidth=0.7, label="one training set"))
    handles.append(Line2D([], [], color="#dddddd", linewidth=8, label="shuffled labels, interval of the mean"))
    legend(figure, handles)
    return figure
