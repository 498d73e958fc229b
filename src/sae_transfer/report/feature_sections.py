"""Sections about features: was there a better one, what predicts which transfer, where they lie, how SAEs differ."""

from collections.abc import Mapping

import pandas as pd

from sae_transfer import splitting
from sae_transfer.report.analyses import Analysis, Column, Picture, Table, tabulate

Tables = Mapping[str, pd.DataFrame]  # by the name of the file under results/, without its ending


def gap(tables: Tables, told: list[str]) -> Analysis:
    rows = tables["oracle_gap"]
    return Analysis(
        "gap",
        "Was there a better feature?",
        "What the standard selection on A loses on B against the best that B's own training rows would have chosen, "
        "scored on B's test rows. The oracle sees labels of B, so it is a bound and no method.",
        told,
        [Picture("oracle_gap", "AUC of the standard selection against that of the oracle, one panel an SAE.")],
        [
            tabulate(
                rows[rows["oracle"] == "trained_on_target"],
                "Every pair: the standard probe against the oracle that is trained on B",
                [
                    Column("sae", "SAE"),
                    Column("train", "A"),
                    Column("test", "B"),
                    Column("probe"),
                    Column("auc", "AUC", ("auc_low", "auc_high")),
                    Column("oracle_auc", "oracle", ("oracle_auc_low", "oracle_auc_high")),
                    Column("gap", interval=("gap_low", "gap_high"), signed=True),
                    Column("p_holm", "p (Holm)", digits=3),
                    Column("oracle_rank", "oracle's rank on A", digits=1),
                    Column("verdict"),
                ],
            )
        ],
    )


def predict(tables: Tables, told: list[str]) -> Analysis:
    rows = tables["predictors"]
    within = rows[(rows["scope"] == "within") & (rows["candidates"] == "features")]
    across = rows[(rows["scope"] == "across") & (rows["candidates"] == "features")]
    both = within.merge(
        across[["sae", "predictor", "spearman", "r2"]], on=["sae", "predictor"], suffixes=("", "_across")
    )
    return Analysis(
        "predict",
        "What predicts which features generalise?",
        "Each predictor is computed for A's 100 best features and 200 random ones of like density, before any test "
        "label is seen, and compared with the AUC that the feature then has on B. Candidates of one pair are no "
        "independent witnesses: what counts is how many domains a claim rests on.",
        told,
        [
            Picture("predictors", "Rank correlation of each predictor with the AUC on B, mean and range over pairs."),
            Picture("held_out", "R2 of the predictions on each domain that they were not fitted on."),
        ],
        [
            tabulate(
                both,
                "Every predictor, for single features",
                [
                    Column("sae", "SAE"),
                    Column("predictor"),
                    Column("uses_target", "sees of B"),
                    Column("spearman", "Spearman within pairs: mean (range)", ("spearman_min", "spearman_max")),
                    Column("spearman_across", "Spearman across"),
                    Column("r2_across", "R2 across"),
                    Column("n_pairs", "pairs", digits=0),
                    Column("n_domains", "domains", digits=0),
                ],
            )
        ],
    )


def policies(tables: Tables, told: list[str]) -> Analysis:
    rows = tables["policies"]
    kinds = rows.groupby(["sae", "probe", "policy", "uses_target"], sort=False)
    summary = kinds["regret"].agg(["mean", "min", "max", "count"]).reset_index()
    better = kinds.apply(lambda part: int(((part["p_holm"] < 0.05) & (part["gain"] > 0)).sum())).rename("better")
    worse = kinds.apply(lambda part: int(((part["p_holm"] < 0.05) & (part["gain"] < 0)).sum())).rename("worse")
    summary = summary.merge(better.reset_index()).merge(worse.reset_index())
    return Analysis(
        "policies",
        "How should features be chosen?",
        "Every policy chooses among the features that A ranks; the probe is then fitted on A. Regret is the AUC that "
        "the oracle has and the policy has not. Better and worse count the pairs that differ from the paper's choice "
        "(the best in domain) with p < 0.05 after Holm's correction over the pairs.",
        told,
        [Picture("policies", "Regret of every policy: a point a pair, and the mean, one panel an SAE.")],
        [
            tabulate(
                summary,
                "Regret of every policy",
                [
                    Column("sae", "SAE"),
                    Column("probe"),
                    Column("policy"),
                    Column("uses_target", "sees of B"),
                    Column("mean", "mean regret (range)", ("min", "max"), digits=3),
                    Column("better", "better than in domain", digits=0),
                    Column("worse", digits=0),
                    Column("count", "pairs", digits=0),
                ],
            )
        ],
    )


def similarity(tables: Tables, told: list[str]) -> Analysis:
    rows = tables["similarity"]
    same = (
        (rows["other"] == "residual") & (rows["other_train"] == rows["train"]) & (rows["other_layer"] == rows["layer"])
    )
    chosen = rows[same & (rows["measure"] == "cosine") & rows["selected"] & (rows["direction"] != "residual")]
    return Analysis(
        "similarity",
        "How near do features lie to the linear probe?",
        "Directions in the coordinates of the residual stream. The decoder's direction is what a feature writes, the "
        "encoder's the linear part of what it reads; an N-sparse probe is read as the sum of either, with its weights. "
        "Two probes may point apart and still score alike where activations vary in few directions: the Mahalanobis "
        "cosine is the correlation of their scores.",
        told,
        [
            Picture("similarity_by_n", "Cosine with the residual probe by the number of features, one panel an SAE."),
            Picture("residual_cosines", "Cosines among the residual probes of all training sets, one panel a layer."),
        ],
        [
            tabulate(
                chosen,
                "Cosine of each chosen probe with the residual probe of the same training set",
                [
                    Column("sae", "SAE"),
                    Column("train", "trained on"),
                    Column("direction", "probe"),
                    Column("n_features", "N", digits=0),
                    Column("reading", "directions"),
                    Column("similarity", "cosine", ("low", "high")),
                    Column("null_median", "by chance, absolute", ("null_low", "null_high")),
                    Column("share_below", "share of chance below"),
                ],
            )
        ],
    )


def saes(tables: Tables, told: list[str]) -> Analysis:
    rows = tables["saes"]
    listed = [
        tabulate(
            rows[rows["test"] == "mean"],
            "Transfer beside width, objective, L0 and explained variance (means over B)",
            [
                Column("sae", "SAE"),
                Column("layer", digits=0),
                Column("width", digits=0),
                Column("objective"),
                Column("l0", "L0", digits=1),
                Column("explained_variance", "explained variance"),
                Column("probe"),
                Column("domain", "tested"),
                Column("auc", "AUC", ("auc_low", "auc_high")),
                Column("delta", "against the narrowest", ("delta_low", "delta_high"), signed=True),
            ],
        )
    ]
    if "splitting" in tables:
        told = [*told, *splitting.answer(tables["splitting"])]
        listed.append(_split(tables["splitting"]))
    return Analysis(
        "saes",
        "Does the kind of SAE matter?",
        "SAEs on the same layer, and what becomes of the best feature of one in the other. Children are found on A's "
        "training rows; a feature is kept where one child recovers it, split where more are needed, lost where five "
        "are not enough.",
        told,
        [],
        listed,
    )


def _split(rows: pd.DataFrame) -> Table:
    return tabulate(
        rows[(rows["children"] == 1) & ~rows["in_domain"]],
        "The best child of each best feature, out of domain",
        [
            Column("sae", "SAE"),
            Column("other"),
            Column("train", "A"),
            Column("test", "B"),
            Column("parent_id", "feature", digits=0),
            Column("child_ids", "child"),
            Column("fate"),
            Column("parent_auc", "AUC of the feature", ("parent_auc_low", "parent_auc_high")),
            Column("auc", "of the child", ("auc_low", "auc_high")),
            Column("delta", "difference", ("delta_low", "delta_high"), signed=True),
        ],
    )
