"""Does a probe read how long a prompt is? AUC when only prompts of like length are compared."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sae_transfer.analyses.analysis import Analysis
from sae_transfer.core import files, paths
from sae_transfer.probing import kinds
from sae_transfer.probing.evaluations import Evaluation, bootstrapped_auc
from sae_transfer.results import cells
from sae_transfer.results.schema import REASON, Column, Table, estimate, integers
from sae_transfer.results.sections import Section, Tables, look_up
from sae_transfer.results.transfer_table import TRANSFER
from sae_transfer.stats import intervals, roc
from sae_transfer.stats.intervals import Estimate, estimates

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

STRATA = 3
TABLE = Table(
    "length",
    "one row a headline probe (full size, B's own template, the rank or N that the training data chose) and B",
    (
        *TRANSFER.pick("space", "train", "test", "probe", "family", "n_features", "n_train"),
        *TRANSFER.pick("auc", "auc_low", "auc_high"),
        *estimate(
            "stratified_auc",
            "AUC over the pairs of one stratum of prompt length: terciles of B's test prompts by characters",
            heading="of like length",
        ),
        *integers(strata="how many strata have rows of both labels"),
        Column("pairs", "number", "the share of all pairs that is left", heading="share of pairs left"),
        REASON,
    ),
)
KEY = ["test", "train", "probe", "family", "n_features", "n_train"]
TOLD = ("residual", "sparse_1", "sparse_n", "text")


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one space.

    Raises:
        UserError: the scores are of other rows than the prompts.
    """
    space = next(space for space in study.all_spaces if space.name == part)
    tests = {name: (_strata(study, name), study.evaluation(name)) for name in study.datasets}
    scores, rows = study.scores(space), []
    own = scores["test"].map({name: study.templates(name)[0] for name in study.datasets})
    scores = scores[(scores["condition"] == "test") & scores["selected"] & (scores["test_variation"] == own)]
    largest = scores.groupby(["train", "test", "probe", "family"])["n_train"].transform("max")
    for key, part_scores in scores[scores["n_train"] == largest].groupby(KEY, sort=False):
        named = dict(zip(KEY, key, strict=True))
        strata, test = tests[str(named["test"])]
        at = strata.index.get_indexer(
            pd.Index(part_scores["id"])
        )  # rows that stand among A's training rows have no score
        if (at < 0).any():
            path = paths.TRANSFER / space.name / f"{named['train']}.scores.parquet"
            raise files.damaged(path, ValueError("its rows are not those of the prompts"))
        found = stratified(part_scores["score"].to_numpy(), strata.to_numpy()[at], test.take(at))
        rows.append({"space": space.name} | named | found)
    return TABLE.frame(rows)


def _strata(study: "Study", dataset: str) -> pd.Series:
    """The stratum of each of B's test prompts under its own template, by row id."""
    prompts = study.prompts(dataset).iloc[study.at(dataset, "test")]
    return pd.Series(length_strata(prompts["prompt"].str.len()), index=prompts["id"])


def length_strata(lengths: ArrayLike, k: int = STRATA) -> NDArray[np.int64]:
    """The stratum [n], from 0, of each row: between the k-quantiles of the lengths [n]; equal lengths stay together."""
    lengths = np.asarray(lengths)
    edges = np.quantile(lengths, np.arange(1, k) / k)
    return np.searchsorted(np.unique(edges), lengths, side="left").astype(np.int64)


def stratified(scores: NDArray[np.float64], strata: NDArray[np.int64], test: Evaluation) -> dict[str, Any]:
    """A probe's AUC on B's test rows with and without the pairs that differ in their stratum.

    Args:
        scores: [n].
        strata: [n], as `length_strata` gives them.
        test: B's test rows and their resamples.

    Returns:
        The columns of the table from `auc` on; NaN and the reason where no stratum has both labels.
    """
    everything = bootstrapped_auc(scores, test)
    plain = everything.interval(test.effective_groups)
    value = float(roc.weighted_auc(scores, test.labels, np.ones((1, len(scores))), strata)[0])
    resampled = roc.weighted_auc(scores, test.labels, test.weights, strata)
    within = intervals.interval(value, resampled, test.effective_groups)
    if np.isnan(value) and not np.isnan(plain.value):
        within = Estimate(reason="every stratum has one class")
    answerable, unanswerable = (np.bincount(strata, test.labels == label) for label in (1, 0))
    pairs, every = float(answerable @ unanswerable), float(answerable.sum() * unanswerable.sum())
    both = int(((answerable > 0) & (unanswerable > 0)).sum())
    row = estimates({"auc": plain, "stratified_auc": within})
    return row | {"strata": both, "pairs": pairs / every if every else np.nan}


def section(tables: Tables) -> Section:
    """What the report says of prompt length."""
    rows = tables["length"][tables["length"]["probe"].isin(TOLD)]
    rows = rows.assign(
        key=[kinds.key(kind, family) for kind, family in zip(rows["probe"], rows["family"], strict=True)]
    )
    rows = rows.assign(fall=rows["auc"] - rows["stratified_auc"])
    fall = Column("fall", "number", "how much lower it is", signed=True)
    key = Column("key", "text", "", heading="probe")
    columns = [key, *TABLE.pick("auc", "stratified_auc"), fall]
    means = rows[rows["train"] != rows["test"]].groupby("key", sort=False)[["auc", "stratified_auc", "fall"]].mean()
    lost, most = (cells.number(float(value), 3) for value in (rows["fall"].mean(), rows["fall"].max()))
    return Section(
        "length",
        "Is it the length of the prompts?",
        f"Compared among prompts of like length alone, the AUC falls by {lost} on average and by {most} at most.",
        "Pairs of an answerable and an unanswerable prompt are compared only within a third of B's prompts by length. "
        "What remains can reflect length only within a third of the lengths.",
        TABLE.name,
        tables=[
            look_up(
                means.reset_index(),
                "Out of domain: means over cells",
                columns,
            ),
        ],
        aside=True,
    )


ANALYSIS = Analysis(
    TABLE, compute, lambda study: [space.name for space in study.all_spaces], params=("transfer",), section=section
)
