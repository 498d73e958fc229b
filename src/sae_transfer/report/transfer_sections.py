"""The sections that the transfer table itself tells: every kind of probe, and how many features."""

import pandas as pd

from sae_transfer.probing import kinds
from sae_transfer.report.figures.means import shown
from sae_transfer.results import cells, headline
from sae_transfer.results.schema import Column
from sae_transfer.results.sections import Picture, Section, Tables, look_up
from sae_transfer.results.verdict import Verdict

COLUMNS = headline.TABLE.pick("auc_in_domain", "auc_ood", "delta_residual")
COUNTS = (
    Column("won", "integer", "", heading="wins"),
    Column("lost", "integer", "", heading="losses"),
    Column("cells_compared", "integer", "", heading="of cells"),
)
CORRECTED = (
    Column("won_corrected", "integer", "", heading="wins, corrected"),
    Column("lost_corrected", "integer", "", heading="losses, corrected"),
)
KEY = Column("key", "text", "", heading="probe")
LEFT_OUT = ("pca", "random_features")  # of the table that is shown; the other table has them


def against_residual(tables: Tables, verdict: Verdict) -> Section:
    """What every kind of probe is worth, beside the baselines."""
    counts = [column.name for column in (*COUNTS, *CORRECTED)]
    table = tables["headline"].astype(dict.fromkeys(counts, "Int64"))
    table.loc[table["cells_compared"] == 0, counts] = pd.NA
    rows = shown(table)
    rows = rows[(rows["role"] != "control") & ~rows["key"].str.startswith(LEFT_OUT)]
    worst = headline.TABLE.pick("auc_ood_worst", "worst_train", "worst_test")
    return Section(
        "probes",
        "Do SAE features beat the residual stream probe?",
        " ".join(verdict.sentences[:2]) or verdict.sentence,
        "A cell is one (space, A, B). A probe wins a cell when the 95% interval of its paired difference to the "
        "residual stream probe of the same layer and A lies above 0, and loses it when it lies below. Corrected counts "
        "bound the chance of a single false one among all cells of a row at 5% (Holm). Trained on the target: the same "
        "procedure on B's own training rows, a ceiling. Random SAE: random directions that fire as often as the SAE's "
        "features.",
        "headline",
        verdict.sentences[2:],
        [
            Picture(
                "means", "Mean AUC in domain and out of domain of every kind of probe; the numbers are in the table."
            )
        ],
        [
            look_up(
                rows, "Means over SAEs and cells; differences and counts are out of domain", [KEY, *COLUMNS, *COUNTS]
            ),
            look_up(
                table[table["space"] != headline.ALL],
                "Every space",
                [*headline.TABLE.pick("space"), KEY, *COLUMNS, *COUNTS, *CORRECTED, *worst],
            ),
        ],
    )


def how_many(tables: Tables) -> Section | None:
    """AUC by the number of features; None without SAE probes."""
    rows = cells.full(cells.own_template(cells.keyed(tables["transfer"])))
    many = rows[(rows["key"] == "sparse_n") | ((rows["key"] == "sparse_1") & (rows["rank"] == 1))]
    if not (many["key"] == "sparse_n").any():
        return None
    means = many.assign(domain=many["in_domain"].map({True: "home", False: "away"}))
    means = means.pivot_table(index="n_features", columns="domain", values="auc", sort=True)
    means = means.join(
        many.groupby("n_features").apply(lambda part: len(part[["space", "train"]].drop_duplicates())).rename("n")
    )
    chosen = many[many["selected"] & (many["key"] == "sparse_n")]
    sizes, away = chosen["n_features"], chosen.loc[~chosen["in_domain"], "auc"].mean()
    told = f"A chooses N = {sizes.median():.0f} (median; {sizes.min()} to {sizes.max()})"
    if "away" in means and means["away"].notna().any():
        best = means["away"].idxmax()
        told += (
            f", which gives AUC {away:.2f} out of domain. One feature gives {means['away'].iloc[0]:.2f}, and "
            f"N = {best}, which only B's labels could choose, {means['away'].max():.2f}"
        )
    columns = [Column("n_features", "integer", "", heading="N"), Column("home", "number", "", heading="in domain")]
    columns += [Column("away", "number", "", heading="out of domain"), Column("n", "integer", "", heading="(SAE, A)")]
    return Section(
        "n",
        "How many features?",
        f"{told}.",
        "N features are ranked on A's training rows alone. In the picture the grey band is the interval of the mean "
        "AUC over shuffles of the labels, averaged over cells. A training set with fewer features has no larger N.",
        "transfer",
        (),
        [
            Picture(
                "auc_by_n",
                "AUC by the number of features, one panel an SAE. A mean ends where an A has fewer.",
            )
        ],
        [look_up(means.reset_index().reindex(columns=[c.name for c in columns]), "Means over SAEs and cells", columns)],
    )


def control(table: pd.DataFrame) -> str:
    """What the negative control says, in a sentence; empty without one."""
    rows = table[(table["space"] == headline.ALL) & table["key"].map(lambda key: kinds.role(key) == "control")]
    rows = rows.dropna(subset=["auc_ood"])
    if not len(rows):
        return ""
    means = ", ".join(f"{row['auc_ood']:.2f} ({kinds.label(row['key'])})" for row in rows.to_dict("records"))
    return f"Probes on permuted training labels have these mean AUCs out of domain: {means}; chance is 0.5."
