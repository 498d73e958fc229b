"""Train x test heatmaps."""

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sae_transfer.probing import kinds
from sae_transfer.report.figures.style import STYLE
from sae_transfer.results import cells
from sae_transfer.results.cells import Grid, Value

SCALES = {"auc": ("RdBu", 0.0, 1.0), "delta_residual": ("PuOr", -1.0, 1.0)}
LABELS = {"auc": "AUC", "delta_residual": "AUC minus that of the residual stream probe"}
MISSING_COLOUR = "#dddddd"
LIGHTEST, INK = "#ffffff", "#111111"


def colours(value: float, column: str) -> tuple[str, str]:
    """(background, ink) of a heatmap's cell, as #rrggbb; grey where the value is missing."""
    if value != value:
        return MISSING_COLOUR, INK
    palette, low, high = SCALES[column]
    # the ends of these maps are too dark to read on
    share = min(max((value - low) / (high - low), 0), 1)
    if column != "auc":  # differences are small: as their square root they can be told apart, up to the largest
        share = 0.5 + 0.5 * (1 if value > 0 else -1) * abs(2 * share - 1) ** 0.5
    share = 0.08 + 0.84 * share
    background = to_rgb(matplotlib.colormaps[palette](share))
    # WCAG's relative luminance; black and white contrast equally at 0.18
    luminance = sum(part * channel**2.2 for part, channel in zip((0.21, 0.72, 0.07), background, strict=True))
    return to_hex(background), INK if luminance > 0.2 else LIGHTEST


@matplotlib.rc_context(STYLE)
def heatmap(table: pd.DataFrame, space: str, key: str, column: str = "auc") -> Figure:
    """Train x test: rows are A, columns are B; the interval below each number, in-domain cells framed.

    Args:
        table: the transfer table.
        space: a value of its column `space`.
        key: the kind of probe (for a control, `<kind>_<family>`).
        column: `auc`, or `delta_residual`, where numbers whose interval excludes 0 are bold.
    """
    grid = cells.grid(table, space, key, column)
    longest = max(len(side.name) for side in [*grid.trains, *grid.tests])
    width, height = max(1.05, 0.085 * longest), 0.62
    size = (width * len(grid.tests) + 0.1 * longest + 1.9, height * len(grid.trains) + 1.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    for i, row in enumerate(grid.values):
        for j, value in enumerate(row):
            _square(axes, i, j, value, column, framed=grid.trains[i].name == grid.tests[j].name)
    _sides(axes, grid)
    subject = kinds.label(key) + (" minus residual stream probe" if column != "auc" else "")
    bold = "; bold: interval excludes 0" if column != "auc" else ""
    axes.set_title(f"{subject}, {space}\n", fontweight="bold")
    axes.text(0, 1.02, f"95% interval below each number{bold}; frame: in domain", transform=axes.transAxes, size=8)
    _colourbar(figure, axes, column)
    return figure


def _square(axes: Axes, i: int, j: int, value: Value, column: str, *, framed: bool) -> None:
    background, ink = colours(value.value, column)
    axes.add_patch(Rectangle((j, i), 1, 1, facecolor=background, edgecolor="white", linewidth=1.5))
    if framed:
        axes.add_patch(Rectangle((j + 0.04, i + 0.05), 0.92, 0.9, fill=False, edgecolor=ink, linewidth=1.4, zorder=3))
    weight = "bold" if column != "auc" and value.excludes_zero else "normal"
    axes.text(j + 0.5, i + 0.4, value.text, ha="center", va="center", color=ink, size=10.5, weight=weight)
    axes.text(j + 0.5, i + 0.74, value.interval, ha="center", va="center", color=ink, size=7.5)


def _sides(axes: Axes, grid: Grid) -> None:
    axes.set(xlim=(0, len(grid.tests)), ylim=(len(grid.trains), 0))
    axes.set_xticks([j + 0.5 for j in range(len(grid.tests))], [f"{side.name}\nn = {side.n}" for side in grid.tests])
    notes = [f"{side.name}\nn = {side.n}" + f"\n{side.note}" * bool(side.note) for side in grid.trains]
    axes.set_yticks([i + 0.5 for i in range(len(grid.trains))], notes)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("tested on")
    axes.set_ylabel("trained on")


def _colourbar(figure: Figure, axes: Axes, column: str) -> None:
    _, low, high = SCALES[column]
    steps = [low + (high - low) * i / 100 for i in range(101)]
    palette = matplotlib.colors.ListedColormap([colours(step, column)[0] for step in steps])
    scale = matplotlib.cm.ScalarMappable(Normalize(low, high), palette)
    bar = figure.colorbar(scale, ax=axes, label=LABELS[column], aspect=30, pad=0.02)
    bar.outline.set_visible(False)
