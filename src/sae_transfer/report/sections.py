"""The analyses' sections of the report: for each table of results/, what it says, its figures and what to look up."""

from collections.abc import Callable, Iterator

import pandas as pd

from sae_transfer import alignment, calibration, cells, sae_comparison, variations
from sae_transfer.generalization import findings
from sae_transfer.report import feature_sections
from sae_transfer.report.analyses import Analysis, Column, Picture, Table, tabulate
from sae_transfer.report.feature_sections import Tables


def analyses_of(tables: Tables) -> list[Analysis]:
    """The sections of the tables that have rows, in the order in which the report answers."""
    there = {name: table for name, table in tables.items() if len(table)}
    return [
        build(there, TOLD[name](there[name]) if name in TOLD else [])
        for name, build in SECTIONS.items()
        if name in there
    ]


def highlights(tables: Tables) -> list[str]:
    """The first sentence of each analysis that belongs among the findings."""
    there = [name for name in ("oracle_gap", "policies", "calibration") if name in tables and len(tables[name])]
    return [TOLD[name](tables[name])[0] for name in there]


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
        [*told, *_spread(chosen)],
        [Picture("training_spread", "AUC of each probe against its spread over training samples, one panel an SAE.")],
        listed,
    )


def _spread(rows: pd.DataFrame) -> Iterator[str]:
    """A sentence a kind of probe, of its rows of results/bootstrap.csv."""
    for probe, part in rows[rows["varied"] == "groups"].dropna(subset=["auc_sd"]).groupby("probe", sort=False):
        home, away = (part.loc[part["in_domain"] == inside, "auc_sd"] for inside in (True, False))
        name = cells.name(str(probe))
        told = f"{name}: the AUC's standard deviation over training samples is {home.mean():.3f} in domain"
        if len(away):
            widest = part[~part["in_domain"]].nlargest(1, "auc_sd").iloc[0]
            told += (
                f" and {away.mean():.3f} out of domain; the widest cell ({widest['space']}, {widest['train']} to "
                f"{widest['test']}) reaches from {widest['auc_low']:.2f} to {widest['auc_high']:.2f}"
            )
        yield f"{told[0].upper()}{told[1:]}."


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


def _length(tables: Tables, told: list[str]) -> Analysis:
    rows = tables["length"]
    chosen = rows[rows["probe"].isin(["residual", "sparse_1", "sparse_n", "text"])]
    moved = chosen["auc"] - chosen["stratified_auc"]
    told = [
        f"Compared among prompts of like length alone, the AUC of these probes falls by {moved.mean():.3f} on average "
        f"and by {moved.max():.3f} at most."
    ]
    return Analysis(
        "length",
        "Is it the length of the prompts?",
        "Pairs of an answerable and an unanswerable prompt are compared only within a third of B's prompts by length. "
        "What is left comes from length only as far as it still differs within a third.",
        told,
        [],
        [
            tabulate(
                chosen.assign(fall=moved),
                "Every probe",
                [
                    Column("space"),
                    Column("train", "A"),
                    Column("test", "B"),
                    Column("probe"),
                    Column("family"),
                    Column("auc", "AUC", ("auc_low", "auc_high")),
                    Column("stratified_auc", "of like length", ("low", "high")),
                    Column("fall", signed=True),
                    Column("pairs", "share of pairs left"),
                ],
            )
        ],
    )


def _regimes(tables: Tables, told: list[str]) -> Analysis:
    return Analysis(
        "regimes",
        "With few, unbalanced or mislabelled training rows",
        "Probes trained on altered draws of A's rows; each number is the mean over draws with its interval. SAE probes "
        "stand beside the residual probe on the same draws, under both rules that rank features.",
        told,
        [],
        [
            tabulate(
                tables["regimes"],
                "Every regime",
                [
                    Column("space"),
                    Column("train", "A"),
                    Column("test", "B"),
                    Column("regime"),
                    Column("value"),
                    Column("probe"),
                    Column("ranking"),
                    Column("auc", "AUC", ("auc_low", "auc_high")),
                    Column("delta_residual", "minus residual", ("delta_low", "delta_high"), signed=True),
                ],
            )
        ],
    )


SECTIONS: dict[str, Callable[[Tables, list[str]], Analysis]] = {
    "bootstrap": _sure,
    "oracle_gap": feature_sections.gap,
    "predictors": feature_sections.predict,
    "policies": feature_sections.policies,
    "calibration": _calibration,
    "variations": _variations,
    "similarity": feature_sections.similarity,
    "saes": feature_sections.saes,
    "length": _length,
    "regimes": _regimes,
}
# The analyses' own sentences.
TOLD: dict[str, Callable[[pd.DataFrame], list[str]]] = {
    "oracle_gap": findings.of_oracle_gap,
    "predictors": findings.of_predictors,
    "policies": findings.of_policies,
    "calibration": calibration.answer,
    "variations": variations.answer,
    "similarity": alignment.answer,
    "saes": sae_comparison.answer,
}
