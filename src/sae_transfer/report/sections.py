"""The analyses' sections of the report: for each table of results/, what it says, its figures and what to look up."""

from collections.abc import Callable, Mapping

import pandas as pd

from sae_transfer import cells
from sae_transfer.report.analyses import Analysis, Column, Picture, Table, tabulate

Tables = Mapping[str, pd.DataFrame]  # by the name of the file under results/, without its ending


def sections(tables: Tables) -> list[Analysis]:
    """The sections of the tables that have rows, in the order in which the report answers."""
    there = {name: table for name, table in tables.items() if len(table)}
    return [
        build(there, TOLD[name](there[name]) if name in TOLD else [])
        for name, build in SECTIONS.items()
        if name in there
    ]


def _sure(tables: Tables, told: list[str]) -> Analysis:
    rows = tables["bootstrap"]
    chosen = rows[rows["selected"]].assign(domain=rows["in_domain"].map({True: "in domain", False: "out of domain"}))
    kinds = chosen.groupby(["space", "probe", "domain", "varied"], sort=False)
    spread = kinds["auc_sd"].agg(["mean", "max"]).reset_index()
    extremes = kinds[["auc_low", "auc_high"]].agg({"auc_low": "min", "auc_high": "max"}).reset_index()
    summary = spread.merge(extremes).assign(probe=spread["probe"].map(cells.name))
    listed = [
        tabulate(
            summary,
            "Standard deviation of the AUC over training samples",
            [
                Column("space"),
                Column("probe"),
                Column("domain", "tested"),
                Column("varied", "what varies"),
                Column("mean", "mean over cells", digits=3),
                Column("max", "largest", digits=3),
                Column("auc_low", "lowest AUC of any sample"),
                Column("auc_high", "highest"),
            ],
        )
    ]
    if "bootstrap_features" in tables:
        listed.append(_selected(tables["bootstrap_features"]))
    return Analysis(
        "sure",
        "How sure are we?",
        "The intervals above hold the training set fixed. Here it varies: its groups are resampled with replacement "
        "(groups), or another sample of it is taken (sample), features are ranked anew and probes are fitted again. "
        "Where the spread is wide, a single training set's number says little.",
        told,
        [Picture("training_spread", "AUC of each probe against its spread over training samples, one panel an SAE.")],
        listed,
    )


def _selected(features: pd.DataFrame) -> Table:
    rows = features[features["varied"] == "groups"].sort_values(["space", "train", "rank"], kind="stable")
    best = rows.groupby(["space", "train"], sort=False).head(3)
    return tabulate(
        best,
        "How often the best features are selected when the training groups are resampled",
        [
            Column("space", "SAE"),
            Column("train", "trained on"),
            Column("feature", digits=0),
            Column("rank", digits=0),
            Column("selected_first", "ranks first"),
            Column("selected_top_k", "among the best K"),
            Column("selected_n", "among the best N"),
            Column("rank_median", "median rank", ("rank_low", "rank_high"), digits=1),
        ],
    )


def _gap(tables: Tables, told: list[str]) -> Analysis:
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


def _predict(tables: Tables, told: list[str]) -> Analysis:
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


def _policies(tables: Tables, told: list[str]) -> Analysis:
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


def _variations(tables: Tables, told: list[str]) -> Analysis:
    rows = tables["variations"]
    return Analysis(
        "variations",
        "Does the wording of the prompt matter?",
        "The same rows under other templates: trained under one of them or under all (pooled), tested under each.",
        told,
        [],
        [
            tabulate(
                rows,
                "Every pair of templates",
                [
                    Column("space"),
                    Column("dataset"),
                    Column("train_variation", "trained under"),
                    Column("test_variation", "tested under"),
                    Column("probe"),
                    Column("auc", "AUC", ("auc_low", "auc_high")),
                    Column("delta_auc", "change", ("delta_auc_low", "delta_auc_high"), signed=True),
                    Column("accuracy", interval=("accuracy_low", "accuracy_high")),
                    Column("delta_accuracy", "change", ("delta_accuracy_low", "delta_accuracy_high"), signed=True),
                    Column("jaccard", "same features (Jaccard)"),
                ],
            )
        ],
    )


def _calibration(tables: Tables, told: list[str]) -> Analysis:
    rows = tables["calibration"]
    return Analysis(
        "calibration",
        "Lost ranking, or a shifted threshold?",
        "A monitor needs a threshold. Here it is A's; with 16 or 64 labels of B, the bias is fitted again, the slope "
        "kept. Where that brings accuracy back, the ranking was fine and the threshold had moved.",
        told,
        [Picture("calibration", "Accuracy on B at A's threshold and after refitting the bias, one panel an SAE.")],
        [
            tabulate(
                rows[rows["labels"] == 0],
                "Every probe at A's threshold",
                [
                    Column("space"),
                    Column("train", "A"),
                    Column("test", "B"),
                    Column("probe"),
                    Column("auc", "AUC", ("auc_low", "auc_high")),
                    Column("accuracy", interval=("accuracy_low", "accuracy_high")),
                    Column("tpr_a_5", "caught", ("tpr_a_5_low", "tpr_a_5_high")),
                    Column("fpr_a_5", "false alarms", ("fpr_a_5_low", "fpr_a_5_high")),
                    Column("ece", "calibration error", ("ece_low", "ece_high")),
                    Column("verdict"),
                ],
            )
        ],
    )


def _similarity(tables: Tables, told: list[str]) -> Analysis:
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


SECTIONS: dict[str, Callable[[Tables, list[str]], Analysis]] = {
    "bootstrap": _sure,
    "oracle_gap": _gap,
    "predictors": _predict,
    "policies": _policies,
    "calibration": _calibration,
    "variations": _variations,
    "similarity": _similarity,
}
TOLD: dict[str, Callable[[pd.DataFrame], list[str]]] = {}  # the analyses' own sentences
