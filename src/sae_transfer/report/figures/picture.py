"""Figures as a notebook displays them, with no matplotlib magic before."""

import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.files import replacing
from sae_transfer.report.figures import heatmaps
from sae_transfer.report.figures.style import STYLE
from sae_transfer.results import cells

SMALLEST = (7.0, 4.0)  # inches


@dataclass(frozen=True)
class Picture:
    """A figure that a notebook displays by itself. `figure` is matplotlib's, to change."""

    figure: Figure

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self._save(png)
        return png.getvalue()

    def save(self, path: Path | str) -> None:
        """Writes it; the ending of the path is the format (png, svg, pdf)."""
        with replacing(Path(path)) as temporary:
            self._save(temporary)

    def _save(self, where: io.BytesIO | Path) -> None:
        with matplotlib.rc_context(STYLE):
            self.figure.savefig(where, dpi=110)


def heatmap(table: pd.DataFrame, space: str, key: str, column: str = "auc") -> Picture:
    """Train x test of one kind of probe.

    Args:
        table: with the columns of the transfer table, from a study or from `transfer`.
        space: a value of its column `space`.
        key: the kind of probe, with its family where the kind has several.
        column: `auc`, or `delta_residual`.

    Raises:
        UserError: the table has no such rows (with those that it has), or no such column is drawn.
    """
    if column not in heatmaps.SCALES:
        raise UserError(f"column '{column}' has no heatmap; {closest(column, heatmaps.SCALES)}")
    keys = [of for place, of in cells.pairs(table) if place == space]
    if key not in keys:
        raise UserError(f"{space}: no rows of '{key}'; {closest(key, keys)}")
    figure = heatmaps.heatmap(table, space, key, column)
    width, height = figure.get_size_inches()
    figure.set_size_inches(max(width, SMALLEST[0]), max(height, SMALLEST[1]))  # two datasets leave the title no room
    return Picture(figure)
