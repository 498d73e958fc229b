"""How near SAE features and their combinations lie to the residual probe."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from sae_transfer.report.figures.style import STYLE, grid_of, legend
from sae_transfer.results import cells

READINGS = {"encoder": "#009E73", "decoder": "#CC79A7"}


@matplotlib.rc_context(STYLE)
def similarity_by_n(similarities: pd.DataFrame) -> Figure:
    """Cosine of SAE probes' directions with the residual probe of the same training set, by the number of features.

    One panel an SAE: the mean over training sets, in both readings; the band is what random features of the SAE give
    (2.5% to 97.5%, mean over training sets). N = 1 is the top feature; what A chose is in the table.

    Args:
        similarities: columns of `analyses.similarity.TABLE`.
    """
    same = (similarities["other"] == "residual") & (similarities["other_train"] == similarities["train"])
    same &= (similarities["measure"] == "cosine") & (similarities["other_layer"] == similarities["layer"])
    rows = similarities[same & ((similarities["direction"] == "sparse_n") | (similarities["rank"] == 1))]
    figure, panels = grid_of([str(sae) for sae in rows["sae"].unique()])
    for axes, sae in panels:
        for reading, colour in READINGS.items():
            _lines(axes, rows[(rows["sae"] == sae) & (rows["reading"] == reading)], colour)
        axes.axhline(0, color="#cccccc", linewidth=1, zorder=0)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(sorted(rows["n_features"].unique())))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="number of features N", ylabel="cosine with the residual probe", ylim=(-0.3, 1.02))
        axes.label_outer()
    handles = [
        Line2D([], [], color=colour, marker="o", linewidth=2, label=f"{reading} directions")
        for reading, colour in READINGS.items()
    ]
    handles += [
        Line2D([], [], color=colour, linewidth=8, alpha=0.2, label=f"random features, {reading}")
        for reading, colour in READINGS.items()
    ]
    legend(figure, handles)
    return figure


def _lines(axes: Axes, rows: pd.DataFrame, colour: str) -> None:
    by_n = rows.pivot_table(index="n_features", columns="train", values="similarity", sort=True)
    bounds = rows.groupby("n_features")[["null_low", "null_high"]].mean()
    axes.fill_between(bounds.index, -bounds["null_high"], bounds["null_high"], color=colour, alpha=0.15, linewidth=0)
    mean_line = by_n.dropna().mean(axis=1)  # an N that some training set lacks would shift the mean
    axes.plot(mean_line.index, mean_line, color=colour, linewidth=2, marker="o", markersize=4)


@matplotlib.rc_context(STYLE)
def residual_cosines(similarities: pd.DataFrame) -> Figure:
    """Cosines among the residual probes of all training sets: a row of panels a layer, plain left, Mahalanobis right.

    Args:
        similarities: columns of `analyses.similarity.TABLE`. The Mahalanobis cosine is the mean over both covariances.
    """
    same_layer = similarities["other_layer"] == similarities["layer"]
    rows = similarities[(similarities["direction"] == "residual") & (similarities["other"] == "residual") & same_layer]
    names = list(dict.fromkeys([*rows["train"], *rows["other_train"]]))
    parts = [
        (f"{measure.replace('_', ' ').capitalize()}, layer {layer}", part[part["measure"] == measure])
        for layer, part in rows.groupby("layer", sort=False)
        for measure in rows["measure"].unique()
    ]
    figure, panels = grid_of([title for title, _ in parts])
    for (axes, _), (_, part) in zip(panels, parts, strict=True):
        square = np.eye(len(names))
        means = part.groupby(["train", "other_train"], as_index=False)["similarity"].mean()
        for a, b, value in means.itertuples(index=False):
            i, j = names.index(a), names.index(b)
            square[i, j] = square[j, i] = value
        axes.imshow(square, cmap="RdBu", vmin=-1.15, vmax=1.15)
        for i, j in np.ndindex(square.shape):
            ink = "white" if abs(square[i, j]) > 0.75 else "#111111"
            axes.text(j, i, cells.number(float(square[i, j])), ha="center", va="center", color=ink)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
    return figure
