"""What predicts which features generalise, and what choosing by it costs."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sae_transfer.probing import kinds
from sae_transfer.report.figures.style import MARKERS, STYLE, grid_of, legend
from sae_transfer.results.words import words

VERDICTS = {"found": "#0072B2", "missed": "#D55E00", "no_good_feature": "#7F7F7F", "open": "#E69F00", "": "#cccccc"}
SHOWN = ("combined", "agreement_sources", "agreement", "few_64", "few_16", "mahalanobis_target", "agreement_target")[
    ::-1
]
SEES = {"no": ("#0072B2", "no row of B"), "rows": ("#009E73", "rows of B"), "labels": ("#D55E00", "labels of B")}


@matplotlib.rc_context(STYLE)
def predictors(table: pd.DataFrame) -> Figure:
    """Spearman correlation of each predictor with the AUC on B over the candidate features of a pair (A, B).

    One panel an SAE: the mean over pairs, and the range over them. The colour says what the predictor sees of B.

    Args:
        table: columns of `analyses.predictors.TABLE`.
    """
    rows = table[(table["scope"] == "within") & (table["candidates"] == "features")].dropna(subset=["spearman"])
    order = rows.groupby("predictor")["spearman"].mean().sort_values().index
    figure, panels = grid_of([str(sae) for sae in rows["sae"].unique()], height=0.22 * len(order) + 0.9)
    for axes, sae in panels:
        part = rows[rows["sae"] == sae].set_index("predictor").reindex(order)
        for place, (_, row) in enumerate(part.iterrows()):
            colour = SEES.get(str(row["target_access"]), SEES["no"])[0]
            axes.hlines(place, row["spearman_min"], row["spearman_max"], color=colour, alpha=0.45, linewidth=1.5)
            axes.plot(row["spearman"], place, "o", color=colour, markersize=5)
        axes.axvline(0, color="#888888", linewidth=1, zorder=0)
        axes.set_yticks(range(len(order)), [words("predictor", str(name)) for name in order], fontsize=8)
        axes.set(xlim=(-1.02, 1.02), xlabel="Spearman correlation with the AUC on B")
        axes.grid(axis="y", color="#eeeeee")
        axes.label_outer()
    legend(figure, _seen(), "the predictor sees")
    return figure


def _seen() -> list[Line2D]:
    return [Line2D([], [], color=colour, marker="o", label=label) for colour, label in SEES.values()]


@matplotlib.rc_context(STYLE)
def held_out(table: pd.DataFrame, names: tuple[str, ...] = SHOWN) -> Figure:
    """R2 of predicting the AUC of features on a domain that the prediction was not fitted on, a point a domain.

    What is below -1 stands at -1.

    Args:
        table: columns of `analyses.predictors.TABLE`.
        names: the predictors to show.
    """
    chosen = (table["scope"] == "held_out") & (table["candidates"] == "features") & (table["role"] == "target")
    rows = table[chosen & table["predictor"].isin(names)].dropna(subset=["r2"])
    saes, domains = [str(sae) for sae in rows["sae"].unique()], list(rows["held_out"].unique())
    figure, panels = grid_of(saes, height=0.3 * len(names) + 1.0)
    for axes, sae in panels:
        for place, name in enumerate(names):
            part = rows[(rows["sae"] == sae) & (rows["predictor"] == name)]
            colour = SEES[str(part["target_access"].iloc[0])][0] if len(part) else "#888888"
            for marker, domain in zip(MARKERS, domains, strict=False):
                value = part.loc[part["held_out"] == domain, "r2"]
                axes.plot(np.clip(value, -1, 1), [place] * len(value), marker, color=colour, markersize=6, alpha=0.8)
        axes.axvline(0, color="#888888", linewidth=1, zorder=0)
        axes.set_yticks(range(len(names)), [words("predictor", name) for name in names], fontsize=8)
        axes.set(xlim=(-1.05, 1.05), ylim=(-0.6, len(names) - 0.4), xlabel="R2 on the held-out domain")
        axes.grid(axis="y", color="#eeeeee")
        axes.label_outer()
    shapes = [
        Line2D([], [], color="#555555", marker=marker, linestyle="", label=f"{domain} held out")
        for marker, domain in zip(MARKERS, domains, strict=False)
    ]
    legend(figure, [*_seen(), *shapes])
    return figure


@matplotlib.rc_context(STYLE)
def oracle_gap(table: pd.DataFrame) -> Figure:
    """AUC on B of the standard selection on A against that of the oracle trained on B; one panel an SAE.

    Args:
        table: columns of `analyses.oracle_gap.TABLE`.
    """
    rows = table[table["oracle"] == "trained_on_target"].dropna(subset=["auc", "oracle_auc"])
    left, bottom = (min(0.7, float(rows[column].min()) - 0.02) for column in ("auc", "oracle_auc"))
    # as high as the oracles' range needs at the same scale: they crowd near 1
    figure, panels = grid_of([str(sae) for sae in rows["sae"].unique()], height=2.9 * (1 - bottom) / (1 - left) + 0.7)
    shapes = dict(zip(rows["probe"].unique(), MARKERS, strict=False))
    for axes, sae in panels:
        for row in rows[rows["sae"] == sae].to_dict("records"):
            colour = VERDICTS.get(row["verdict"], VERDICTS[""])
            axes.plot(row["auc"], row["oracle_auc"], shapes[row["probe"]], color=colour, markersize=5, alpha=0.8)
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle=":", zorder=0)
        axes.set(xlim=(left, 1.02), ylim=(bottom, 1.02), aspect="equal", xlabel="AUC on B, A's choice")
        axes.set_ylabel("B's own choice")
        axes.label_outer()
    handles = [
        Line2D([], [], color=c, marker="s", linestyle="", label=words("verdict", v)) for v, c in VERDICTS.items() if v
    ]
    handles += [
        Line2D([], [], color="#555555", marker=m, linestyle="", label=kinds.label(p)) for p, m in shapes.items()
    ]
    legend(figure, handles)
    return figure


@matplotlib.rc_context(STYLE)
def policies(table: pd.DataFrame) -> Figure:
    """Regret of every policy: a small point a pair (A, B), a large one for the mean; one panel an SAE.

    Args:
        table: columns of `analyses.policies.TABLE`.
    """
    rows = table.dropna(subset=["regret"])
    names = list(dict.fromkeys(rows["policy"]))[::-1]
    heights = dict(zip(rows["probe"].unique(), (0.18, -0.18), strict=False))
    figure, panels = grid_of([str(sae) for sae in rows["sae"].unique()], height=0.32 * len(names) + 0.9)
    for axes, sae in panels:
        for place, policy in enumerate(names):
            for (kind, shift), marker in zip(heights.items(), MARKERS, strict=False):
                part = rows[(rows["sae"] == sae) & (rows["policy"] == policy) & (rows["probe"] == kind)]
                colour = SEES.get(str(part["target_access"].iloc[0]) if len(part) else "no", SEES["no"])[0]
                axes.plot(part["regret"], [place + shift] * len(part), ".", color=colour, alpha=0.35, markersize=4)
                axes.plot(
                    part["regret"].mean(), place + shift, marker, color=colour, markersize=6, markeredgecolor="white"
                )
        axes.axvline(0, color="#888888", linewidth=1, zorder=0)
        axes.set_yticks(range(len(names)), [words("policy", name) for name in names], fontsize=8)
        axes.set(xlabel="AUC lost against B's own choice", ylim=(-0.6, len(names) - 0.4))
        axes.grid(axis="y", color="#eeeeee")
        axes.label_outer()
    shapes = [
        Line2D([], [], color="#555555", marker=marker, linestyle="", label=kinds.label(kind))
        for kind, marker in zip(heights, MARKERS, strict=False)
    ]
    legend(figure, [*_seen(), *shapes], "the policy sees")
    return figure
