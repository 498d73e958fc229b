"""results/warnings.csv: what a reader must know before believing a number. One function a warning, one list.

`sae-transfer check`, `sae-transfer summary`, the top of the report and MLflow show the same sentences. A new warning is
a function of the tables of results/ here, and a line in `WARNINGS`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from sae_transfer.probing import kinds
from sae_transfer.results import cells, headline
from sae_transfer.results.schema import Table, texts
from sae_transfer.results.sections import Tables

Severity = Literal["serious", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note")
TABLE = Table(
    "warnings",
    "one row a warning, the worst first",
    (
        *texts(
            severity="serious: the numbers of the subject are not to be believed; warning: read them with it; note",
            subject="the dataset, SAE or probe that it is about",
            sentence="the warning",
        ),
    ),
)
LEAST_VARIANCE = 0.0  # below, an SAE is worse than the mean activation, and encoding refuses it
LITTLE_VARIANCE = 0.5
MANY_DEAD = 0.5
EQUAL = 0.02  # AUCs that differ by less are equal in practice
AT_CHANCE = 0.05  # how far from 0.5 the interval of the mean AUC of shuffled labels may lie


@dataclass(frozen=True)
class Notice:
    """One warning."""

    severity: Severity
    subject: str
    sentence: str


def warnings(tables: Tables) -> list[Notice]:
    """All that `WARNINGS` say of a study's tables, the worst first."""
    return by_severity(notice for said in WARNINGS for notice in said(tables))


def by_severity(notices: Iterable[Notice]) -> list[Notice]:
    return sorted(notices, key=lambda notice: SEVERITIES.index(notice.severity))


def frame(notices: Iterable[Notice]) -> pd.DataFrame:
    """The notices as a table."""
    return TABLE.frame(asdict(notice) for notice in notices)


def explained_variance(tables: Tables) -> Iterator[Notice]:
    """An SAE that does not reconstruct the activations has features that mean nothing there."""
    rows = _table(tables, "health", "sae", "dataset", "explained_variance")
    rows = rows[(rows["dataset"] != headline.ALL) & (rows["explained_variance"] < LITTLE_VARIANCE)]
    for sae, part in rows.groupby("sae", sort=False):
        worst = part.sort_values("explained_variance", kind="stable").iloc[0]
        value = float(worst["explained_variance"])
        yield Notice(
            "serious" if value < LEAST_VARIANCE else "warning",
            str(sae),
            f"{sae} explains {cells.number(value)} of the variance on {worst['dataset']}"
            f"{_more(len(part), 'dataset')}: "
            + ("worse than the mean activation." if value < LEAST_VARIANCE else "what it misses has no feature."),
        )


def dead_features(tables: Tables) -> Iterator[Notice]:
    """Features that fire on no prompt cannot be chosen."""
    rows = _table(tables, "health", "sae", "dataset", "dead")
    for row in rows[(rows["dataset"] == headline.ALL) & (rows["dead"] > MANY_DEAD)].to_dict("records"):
        yield Notice("note", row["sae"], f"{row['dead']:.0%} of the features of {row['sae']} fire on no prompt.")


def truncated_prompts(tables: Tables) -> Iterator[Notice]:
    """A prompt that was cut may have lost what its label is about."""
    rows = _table(tables, "datasets", "dataset", "truncated", "prompts")
    for row in rows[rows["truncated"] > 0].to_dict("records"):
        yield Notice(
            "warning",
            row["dataset"],
            f"{row['truncated']} of {row['prompts']} prompts of {row['dataset']} were cut; their labels are kept.",
        )


def unknown_tokens(tables: Tables) -> Iterator[Notice]:
    """A word that the tokenizer does not know is the same token as any other such word."""
    rows = _table(tables, "datasets", "dataset", "unknown_tokens", "prompts")
    for row in rows[rows["unknown_tokens"] > 0].to_dict("records"):
        often = f"{row['unknown_tokens']} times in {row['prompts']} prompts"
        yield Notice("warning", row["dataset"], f"The tokenizer reads an unknown token {often} of {row['dataset']}.")


def longer_than_in_training(tables: Tables) -> Iterator[Notice]:
    """An SAE was trained on contexts of some length, and is extrapolated beyond it.

    Where the tokens were not counted, words stand for them: a word is at least one token.
    """
    saes = _table(tables, "health", "sae", "context_size").dropna(subset=["context_size"])
    data = _table(tables, "datasets", "dataset", "words", "tokens")
    data = data.assign(tokens=data["tokens"].fillna(data["words"]))
    for row in saes.drop_duplicates("sae").to_dict("records"):
        long = data[data["tokens"] > row["context_size"]]
        if len(long):
            most = long.sort_values("tokens", ascending=False, kind="stable").iloc[0]
            yield Notice(
                "warning",
                row["sae"],
                f"{row['sae']} was trained on {row['context_size']} tokens of context; a prompt of {most['dataset']}"
                f"{_more(len(long), 'dataset')} has {most['tokens']:.0f}.",
            )


def batches(tables: Tables) -> Iterator[Notice]:
    """A prompt's stream that depends on longer prompts in its batch is read in batches of one length."""
    rows = _table(tables, "datasets", "dataset", "padding", "batch_difference")
    rows = rows[rows["padding"] == "none"]
    if len(rows):
        told = ", ".join(f"{row['dataset']} {row['batch_difference']:.0%}" for row in rows.to_dict("records"))
        yield Notice(
            "note",
            "batches",
            f"Beside longer prompts this model reads a prompt otherwise ({told}): only prompts of one "
            "length shared a batch.",
        )


def silent_features(tables: Tables) -> Iterator[Notice]:
    """A feature that fires on no row of B has an AUC of exactly 0.5 there, and an interval that means nothing."""
    rows = _headline_cells(tables)
    rows = rows[(rows["key"] == "sparse_1") & ~rows["in_domain"]]
    silent = rows.loc[rows["density"] == 0, "space"].value_counts(sort=False)
    if len(silent):
        of_each = ", ".join(f"{space} {n}" for space, n in silent.items())
        yield Notice(
            "warning",
            "sparse_1",
            f"In {silent.sum()} of {len(rows)} pairs the chosen feature fires on no test row of B ({of_each}): its AUC "
            "there is 0.5 for want of a signal.",
        )


def overlap(tables: Tables) -> Iterator[Notice]:
    """Test rows that stand among A's training rows test nobody."""
    rows = _headline_cells(tables).drop_duplicates(["train", "test"])
    for row in rows[rows["n_overlap"] > 0].to_dict("records"):
        yield shared_rows(row["train"], row["test"], row["n_overlap"], row["n_test"] + row["n_overlap"])


def shared_rows(train: str, test: str, n: int, total: int) -> Notice:
    """`n` of B's `total` test rows stand among A's training rows."""
    stand = "stands" if n == 1 else "stand"
    told = f"{n} of {total} test rows of {test} {stand} among {train}'s training rows: left out of {train} to {test}."
    return Notice("note", test, told)


def few_groups(dataset: str, n: float, least: int) -> Notice:
    """A dataset whose test rows are worth fewer groups than an interval needs."""
    told = f"The test rows of {dataset} are worth {n:.1f} groups, fewer than {least}: nothing there has an interval."
    return Notice("warning", dataset, told)


def no_interval(tables: Tables) -> Iterator[Notice]:
    """Without an interval nothing can be said of what is tested there."""
    rows = _headline_cells(tables)
    rows = rows[rows["probe"].map(kinds.role) == "probe"]
    for test, part in rows.groupby("test", sort=False):
        if part["auc_low"].isna().all():
            told = f"Nothing that is tested on {test} has an interval: its test rows have too few groups or one label."
            yield Notice("warning", str(test), told)


def not_tested(tables: Tables) -> Iterator[Notice]:
    """What the question needs and the study lacks."""
    rows = _headline_cells(tables)
    if len(rows) and not (~rows["in_domain"]).any():
        yield Notice("serious", "study", "Transfer was not tested: the study has one dataset.")
    if len(rows) and not (rows["sae"] != "").any():
        yield Notice("serious", "study", "SAE features were not tested: the study has no SAE.")


def readable_from_the_form(tables: Tables) -> Iterator[Notice]:
    """A baseline without a model that does better than the SAE's features: the label can be read from the form."""
    table = _table(tables, "headline", "space", "key", "auc_ood")
    ours = headline.of_all(table, "sparse_1")
    for row in table[table["space"] == "text"].to_dict("records"):
        if ours and row["auc_ood"] > ours["auc_ood"]:
            yield Notice(
                "warning",
                row["key"],
                f"Without any model, {kinds.label(row['key'])} has AUC {cells.number(row['auc_ood'])} out of domain, "
                f"more than the best SAE feature ({cells.number(ours['auc_ood'])}): the labels show in the wording.",
            )


def random_sae(tables: Tables) -> Iterator[Notice]:
    """Where an SAE with random weights transfers as well, what transfers is not what the SAE was trained for."""
    table = _table(tables, "headline", "space", "key", "auc_ood")
    ours, random = (headline.of_all(table, key) for key in ("sparse_1", "random_sae_sparse_1"))
    if ours and random and random["auc_ood"] > ours["auc_ood"] - EQUAL:
        low, high = (cells.number(random[f"auc_ood_{end}"]) for end in ("low", "high"))
        yield Notice(
            "warning",
            "random_sae",
            f"An SAE with random weights does as well out of domain: its best feature has AUC "
            f"{cells.number(random['auc_ood'])} ({low} to {high}), the real SAEs' {cells.number(ours['auc_ood'])}.",
        )


def leaking_control(tables: Tables) -> Iterator[Notice]:
    """Probes on shuffled labels must be at chance."""
    table = _table(tables, "headline", "space", "key", "auc_in_domain", "auc_ood")
    for row in table[(table["space"] == headline.ALL) & table["key"].map(cells.is_control)].to_dict("records"):
        for where, column in (("in domain", "auc_in_domain"), ("out of domain", "auc_ood")):
            if row[f"{column}_low"] > 0.5 + AT_CHANCE or row[f"{column}_high"] < 0.5 - AT_CHANCE:
                told = f"{kinds.label(row['key']).capitalize()}: mean AUC {cells.number(row[column])} {where}, not 0.5."
                yield Notice("serious", row["key"], told)


WARNINGS: tuple[Callable[[Tables], Iterator[Notice]], ...] = (
    not_tested,
    readable_from_the_form,
    random_sae,
    explained_variance,
    silent_features,
    truncated_prompts,
    longer_than_in_training,
    batches,
    unknown_tokens,
    no_interval,
    leaking_control,
    dead_features,
    overlap,
)


def _table(tables: Tables, name: str, *columns: str) -> pd.DataFrame:
    """The table, or one without rows where the study has none."""
    found: pd.DataFrame = tables.get(name, pd.DataFrame())
    return found if len(found) else pd.DataFrame(columns=columns)


def _headline_cells(tables: Mapping[str, Any]) -> pd.DataFrame:
    return cells.headline(tables["transfer"])


def _more(n: int, what: str) -> str:
    """`, and on 2 more datasets`: how many there are beside the one that is named."""
    return f" and on {n - 1} more {what}{'s' if n > 2 else ''}" if n > 1 else ""
