"""Every figure of a study by its file name, and how figures are saved."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from sae_transfer.core.files import replacing
from sae_transfer.report.figures.comparisons import auc_by_n, in_domain_vs_ood, variations
from sae_transfer.report.figures.directions import residual_cosines, similarity_by_n
from sae_transfer.report.figures.heatmaps import heatmap
from sae_transfer.report.figures.prediction import held_out, oracle_gap, policies, predictors
from sae_transfer.report.figures.shift import calibration
from sae_transfer.report.figures.style import STYLE
from sae_transfer.report.figures.training_spread import training_spread
from sae_transfer.results import cells

Drawing = Callable[[], Figure]
OF_ANALYSES: dict[str, dict[str, Callable[[pd.DataFrame], Figure]]] = {
    "bootstrap": {"training_spread": training_spread},
    "oracle_gap": {"oracle_gap": oracle_gap},
    "predictors": {"predictors": predictors, "held_out": held_out},
    "policies": {"policies": policies},
    "calibration": {"calibration": calibration},
    "similarity": {"similarity_by_n": similarity_by_n, "residual_cosines": residual_cosines},
}


def of_transfer(table: pd.DataFrame) -> dict[str, Drawing]:
    """Every figure of a study by its file name; baselines have their numbers in the table alone."""
    table = cells.without_baselines(table)
    found: dict[str, Drawing] = {}
    for space, key in cells.pairs(table):
        found[f"heatmap_{space}_{key}"] = partial(heatmap, table, space, key)
        if key != "residual" and not cells.is_control(key):
            found[f"difference_{space}_{key}"] = partial(heatmap, table, space, key, "delta_residual")
    found["in_domain_vs_ood"] = partial(in_domain_vs_ood, table)
    if (table["probe"] == "sparse_n").any():
        found["auc_by_n"] = partial(auc_by_n, table)
    return found | {f"variations_{dataset}": partial(variations, table, dataset) for dataset in varied(table)}


def of_analyses(tables: Mapping[str, pd.DataFrame]) -> dict[str, Drawing]:
    """Every figure of the analyses by its file name.

    Args:
        tables: by the name of the file under results/, without its ending; those without rows are passed over. A figure
            for which every number is missing has no panels.
    """
    there = {name: tables[name] for name in OF_ANALYSES if name in tables and len(tables[name])}
    return {name: partial(draw, there[table]) for table in there for name, draw in OF_ANALYSES[table].items()}


def varied(table: pd.DataFrame) -> list[str]:
    """The datasets that were tested under more than one prompt template."""
    counts = table[table["condition"] == "test"].groupby("test", sort=False)["test_variation"].nunique()
    return [str(dataset) for dataset in counts[counts > 1].index]


def save(figure: Figure, folder: Path, name: str) -> None:
    """`<name>.png` and `<name>.svg`; equal figures give equal bytes."""
    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        with replacing(folder / f"{name}.{ending}") as path, matplotlib.rc_context(STYLE):
            figure.savefig(path, dpi=150, metadata=metadata)
        figure.set_layout_engine("none")  # laid out once; a second time takes as long again
