"""What a threshold is worth on another dataset."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sae_transfer.probing import kinds
from sae_transfer.report.figures.style import MARKERS, STYLE, grid_of, legend
from sae_transfer.results.words import words

VERDICTS = {
    "holds": "#0072B2",
    "shifted threshold": "#E69F00",
    "lost ranking": "#D55E00",
    "both": "#CC79A7",
    "unknown": "#aaaaaa",
}


@matplotlib.rc_context(STYLE)
def calibration(table: pd.DataFrame) -> Figure:
    """Accuracy out of domain at A's threshold, against accuracy with the bias fitted on labels of B.

    Args:
        table: columns of `analyses.calibration.TABLE`.
    """
    rows = table[~table["in_domain"]]
    keys = ["space", "train", "test", "probe"]
    after = rows[rows["labels"] == rows["labels"].max()][[*keys, "accuracy"]]
    both = rows[rows["labels"] == 0].merge(after, on=keys, suffixes=("", "_after"))
    figure, panels = grid_of([str(space) for space in both["space"].unique()])
    shapes = dict(zip(both["probe"].unique(), MARKERS, strict=False))
    low = float(np.nanmin(both[["accuracy", "accuracy_after"]].to_numpy(dtype=float))) - 0.04
    for axes, space in panels:
        for row in both[both["space"] == space].to_dict("records"):
            colour, marker = VERDICTS.get(row["verdict"], "#aaaaaa"), shapes[row["probe"]]
            axes.plot(row["accuracy"], row["accuracy_after"], marker, color=colour, markersize=5, alpha=0.85)
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle=":", zorder=0)
        axes.set(xlim=(low, 1.02), ylim=(low, 1.02), aspect="equal", xlabel="accuracy at A's threshold")
        axes.set_ylabel(f"with {int(rows['labels'].max())} labels of B")
        axes.label_outer()
    handles = [
        Line2D([], [], color=colour, marker="s", linestyle="", label=words("verdict", name))
        for name, colour in VERDICTS.items()
    ]
    handles += [
        Line2D([], [], color="#555555", marker=m, linestyle="", label=kinds.label(p)) for p, m in shapes.items()
    ]
    legend(figure, handles)
    return figure
