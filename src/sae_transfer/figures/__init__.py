"""Figures of the transfer table. The only home of matplotlib.

Every figure is a function of the tidy table (columns: `sae_transfer.transfer.COLUMNS`). Colours are told apart by
colour-blind readers (Okabe and Ito; RdBu, PuOr), and the scales of heatmaps are fixed, so that any two compare.
"""

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from sae_transfer import cells
from sae_transfer.figures.comparisons import auc_by_n, in_domain_vs_ood, variations
from sae_transfer.figures.heatmaps import colours, heatmap
from sae_transfer.figures.style import STYLE
from sae_transfer.store import replacing

__all__ = ["auc_by_n", "colours", "draw", "heatmap", "in_domain_vs_ood", "save", "variations", "varied"]


def draw(table: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Every figure of a study with its file name; baselines have their numbers in the table alone."""
    table = cells.without_baselines(table)
    for space, key in cells.kinds(table):
        yield f"heatmap_{space}_{key}", heatmap(table, space, key)
        if key != "residual" and not cells.is_control(key):
            yield f"difference_{space}_{key}", heatmap(table, space, key, "delta_residual")
    yield "in_domain_vs_ood", in_domain_vs_ood(table)
    if (table["probe"] == "sparse_n").any():
        yield "auc_by_n", auc_by_n(table)
    for dataset in varied(table):
        yield f"variations_{dataset}", variations(table, dataset)


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
