"""Every figure of a study by its file name, and how figures are saved."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from sae_transfer.core.files import replacing
from sae_transfer.probing import kinds
from sae_transfer.report.figures.auc_by_n import auc_by_n
from sae_transfer.report.figures.directions import residual_cosines, similarity_by_n
from sae_transfer.report.figures.heatmaps import heatmap
from sae_transfer.report.figures.means import means
from sae_transfer.report.figures.prediction import held_out, oracle_gap, policies, predictors
from sae_transfer.report.figures.shift import calibration
from sae_transfer.report.figures.style import STYLE
from sae_transfer.report.figures.training_spread import training_spread
from sae_transfer.results import cells
from sae_transfer.results.sections import Tables

Drawing = Callable[[], Figure]
OF_TABLES: dict[str, dict[str, Callable[[pd.DataFrame], Figure]]] = {
    "headline": {"means": means},
    "bootstrap": {"training_spread": training_spread},
    "oracle_gap": {"oracle_gap": oracle_gap},
    "predictors": {"predictors": predictors, "held_out": held_out},
    "policies": {"policies": policies},
    "calibration": {"calibration": calibration},
    "similarity": {"similarity_by_n": similarity_by_n, "residual_cosines": residual_cosines},
}


def every(tables: Tables) -> dict[str, Drawing]:
    """Every figure of a study by its file name; baselines and controls have no heatmap, their numbers are in tables.

    Args:
        tables: those of results/ that have rows. A figure for which every number is missing has no panels.
    """
    found = of_transfer(tables["transfer"])
    there = {name: tables[name] for name in OF_TABLES if name in tables}
    return found | {name: partial(draw, there[table]) for table in there for name, draw in OF_TABLES[table].items()}


def of_transfer(table: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of the transfer table by file name; baselines and controls have their numbers in tables alone."""
    shown = table[table["probe"].map(kinds.role) == "probe"]
    found: dict[str, Drawing] = {}
    for space, key in cells.pairs(shown):
        found[f"heatmap_{space}_{key}"] = partial(heatmap, table, space, key)
        if key != "residual":
            found[f"difference_{space}_{key}"] = partial(heatmap, table, space, key, "delta_residual")
    return found | ({"auc_by_n": partial(auc_by_n, table)} if (table["probe"] == "sparse_n").any() else {})


def save(figure: Figure, folder: Path, name: str) -> None:
    """`<name>.png` and `<name>.svg`; equal figures give equal bytes."""
    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        with replacing(folder / f"{name}.{ending}") as path, matplotlib.rc_context(STYLE):
            figure.savefig(path, dpi=150, metadata=metadata)
        figure.set_layout_engine("none")  # laid out once; a second time takes as long again
