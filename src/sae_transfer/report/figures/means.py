"""The study at a glance: every kind of probe in domain and out of domain."""

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sae_transfer.probing import kinds
from sae_transfer.report.figures.style import STYLE, legend
from sae_transfer.results.headline import ALL

WHERE = (("auc_in_domain", "in domain", "#0072B2", "o"), ("auc_ood", "out of domain", "#D55E00", "s"))


def shown(headline: pd.DataFrame) -> pd.DataFrame:
    """The rows of the headline table that stand for the study: the means over SAEs, then what needs no layer."""
    rows = headline[(headline["space"] == ALL) | headline["space"].isin(["text", "verbal"])]
    order = {"probe": 0, "baseline": 1, "control": 2}
    return rows.assign(role=rows["key"].map(kinds.role)).sort_values("role", key=lambda r: r.map(order), kind="stable")


@matplotlib.rc_context(STYLE)
def means(headline: pd.DataFrame) -> Figure:
    """Mean AUC with its 95% interval, a row a kind of probe: probes, then baselines, then controls.

    Args:
        headline: columns of `results.headline.TABLE`.
    """
    rows = shown(headline)
    figure = Figure(figsize=(7.5, 0.27 * len(rows) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    for column, _, colour, marker in WHERE:
        there = rows[column].notna().to_numpy()
        y = [place + (0.12 if column == "auc_ood" else -0.12) for place in range(len(rows))]
        y = [place for place, known in zip(y, there, strict=True) if known]
        known = rows[there]
        axes.hlines(y, known[f"{column}_low"], known[f"{column}_high"], color=colour, linewidth=1.6)
        axes.plot(known[column], y, marker, color=colour, markersize=5, markeredgecolor="white")
    axes.axvline(0.5, color="#888888", linewidth=1, linestyle=":", zorder=0)
    for place in range(1, len(rows)):
        if rows["role"].iloc[place] != rows["role"].iloc[place - 1]:
            axes.axhline(place - 0.5, color="#cccccc", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [kinds.label(str(key)) for key in rows["key"]])
    axes.set(xlabel="mean AUC, 95% interval", ylim=(len(rows) - 0.5, -0.5), xlim=(None, 1.01))
    axes.grid(axis="x", color="#eeeeee")
    legend(figure, [Line2D([], [], color=c, marker=m, linestyle="", label=label) for _, label, c, m in WHERE])
    return figure
