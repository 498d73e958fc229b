"""Probes beside one another: in domain against out of domain, by number of features, by prompt template."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from scipy.optimize import isotonic_regression

from sae_transfer.probing import kinds
from sae_transfer.report.figures.style import MARKERS, STYLE, legend, panels, tints
from sae_transfer.results import cells

NINES = 2.7  # where the axis ends: few test sets can tell an AUC above 1 - 10^-2.7 = 0.998 from another


@matplotlib.rc_context(STYLE)
def in_domain_vs_ood(table: pd.DataFrame) -> Figure:
    """Each probe's AUC in domain against its mean AUC out of domain, with the range over B; one panel an SAE.

    In-domain AUCs crowd near 1, so the x axis is the logarithm of 1 - AUC, and probes too close to tell apart are
    moved sideways by the least that separates them; those above 0.998 stand side by side in a band of their own.
    """
    rows = cells.headline(table)
    rows = rows[~rows["probe"].isin(kinds.kinds(role="control"))]
    figure, parts = panels(rows)
    markers = dict(zip(cells.datasets(table), MARKERS * len(table), strict=False))
    tint = tints(rows)
    left = float(_nines(min(rows.loc[rows["in_domain"], "auc"].min(), 0.9))) - 0.1
    right = NINES + 0.3
    curve = np.linspace(0, 1 - 10.0**-NINES, 500)
    for axes, (_, part) in parts:
        points = [(key, part[(part["key"] == key) & (part["train"] == a)]) for key in tint for a in markers]
        points = [(key, probe) for key, probe in points if len(probe)]
        home = np.array([probe.loc[probe["in_domain"], "auc"].mean() for _, probe in points])
        places = _places(home, (NINES - left) / 45)
        right = max(right, float(places.max(initial=0)) + 0.1)
        for x, (key, probe) in zip(places, points, strict=True):
            ood, marker = probe.loc[~probe["in_domain"], "auc"], markers[str(probe["train"].iloc[0])]
            axes.vlines(x, ood.min(), ood.max(), color=tint[key], alpha=0.45, linewidth=1.2)
            axes.plot(x, ood.mean(), marker, color=tint[key], markeredgecolor="white", markersize=7)
        axes.plot(_nines(curve), curve, color="#888888", linewidth=1, linestyle=":", zorder=0)
        axes.axhline(0.5, color="#cccccc", linewidth=1, zorder=0)
        axes.set_ylim(min(0.3, rows["auc"].min() - 0.02), 1.02)
        axes.set(xlabel="AUC in domain", ylabel="AUC out of domain: mean, range")
    ticks = [tick for tick in (0.5, 0.8, 0.9, 0.95, 0.99) if _nines(tick) >= left]
    for axes, _ in parts:
        axes.axvspan(NINES, right, color="#f2f2f2", linewidth=0, zorder=-1)
        axes.set_xticks([*_nines(np.array(ticks)), (NINES + right) / 2], [*map(str, ticks), "> 0.998"])
        axes.set_xlim(left, right)
    handles = [Line2D([], [], color=tint[key], marker="o", linestyle="", label=kinds.label(key)) for key in tint]
    handles.append(Line2D([], [], color="#888888", linestyle=":", label="no loss out of domain"))
    handles += [
        Line2D([], [], color="#555555", marker=marker, linestyle="", label=f"trained on {train}")
        for train, marker in markers.items()
    ]
    legend(figure, handles)
    return figure


def _nines(auc: Any) -> Any:
    return -np.log10(np.maximum(1 - np.asarray(auc), 10.0**-NINES))


def _places(home: Any, gap: float) -> Any:
    """Where each AUC in domain is drawn; those beyond the axis stand side by side in a band of their own."""
    x = _nines(home)
    beyond, places = x >= NINES, np.empty(len(x))
    places[~beyond] = _apart(x[~beyond], gap)
    places[beyond] = max([NINES, *places[~beyond]]) + gap * np.arange(1, beyond.sum() + 1)
    return places


def _apart(x: Any, gap: float) -> Any:
    """The x nearest to the given ones (least squares) that keep their order and are at least `gap` apart."""
    order, steps = np.argsort(x, kind="stable"), gap * np.arange(len(x))
    moved = np.empty(len(x))
    moved[order] = isotonic_regression(x[order] - steps).x + steps
    return moved


@matplotlib.rc_context(STYLE)
def auc_by_n(table: pd.DataFrame) -> Figure:
    """AUC against the number of features, in domain and out of domain: the mean over A, and a thin line for each A."""
    rows = cells.full(cells.own_template(cells.keyed(table)))
    figure, parts = panels(rows)
    lowest = 0.4
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
            mean_line = by_n.dropna().mean(axis=1)  # an N that some A lacks would shift the mean
            axes.plot(mean_line.index, mean_line, color=colour, linestyle=style, linewidth=2, marker="o", markersize=4)
            reference = part.loc[(part["key"] == "residual") & (part["in_domain"] == home), "auc"]
            axes.axhline(reference.mean(), color="#000000", linestyle=style, linewidth=1, zorder=1)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(sorted(sparse["n_features"].unique())))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="number of features N", ylabel="AUC")
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


@matplotlib.rc_context(STYLE)
def variations(table: pd.DataFrame, dataset: str) -> Figure:
    """AUC of probes trained on a dataset, on its test rows under every prompt template, with intervals."""
    rows = cells.full(cells.keyed(table))
    rows = rows[rows["selected"] & (rows["train"] == dataset) & (rows["test"] == dataset)]
    rows = rows[~rows["probe"].isin(kinds.kinds(role="control"))]
    figure, parts = panels(rows)
    templates, tint = list(rows["test_variation"].unique()), tints(rows)
    for axes, (_, part) in parts:
        for k, key in enumerate(tint):
            series = part[part["key"] == key].set_index("test_variation").reindex(templates)
            y = [i + (k - (len(tint) - 1) / 2) * 0.16 for i in range(len(templates))]
            axes.hlines(y, series["auc_low"], series["auc_high"], color=tint[key], linewidth=1.5)
            axes.plot(series["auc"], y, MARKERS[k], color=tint[key], markersize=5, markeredgecolor="white")
        axes.set_yticks(range(len(templates)), [name.replace("_", " ") for name in templates])
        axes.set(xlabel="AUC, 95% interval", xlim=(min(0.9, rows["auc_low"].min() - 0.02), 1.005))
        axes.set_ylim(len(templates) - 0.5, -0.5)
        axes.grid(axis="x", color="#e5e5e5")
    handles = [
        Line2D([], [], color=tint[key], marker=MARKERS[k], linewidth=1.5, label=kinds.label(key))
        for k, key in enumerate(tint)
    ]
    legend(figure, handles, f"trained and tested on {dataset}, whose prompt template varies")
    return figure
