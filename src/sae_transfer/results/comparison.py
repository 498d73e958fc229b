"""Two studies' transfer tables, cell by cell: how much each AUC differs, paired where both tested the same rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.randomness import rng_for
from sae_transfer.results import cells
from sae_transfer.stats import intervals, roc

CELL = ["space", "train", "test", "test_variation", "condition", "key"]
COLUMNS = (
    *CELL,
    *("n_train_x", "n_train_y", "n_features_x", "n_features_y", "auc_x", "auc_y"),
    *("n_shared", "n_groups", "difference", "difference_low", "difference_high", "reason"),
)


@dataclass(frozen=True)
class Compared:
    """One study's results.

    `table` is its transfer table; `scores` gives a space's scores (artifacts/transfer), None where it has none.
    """

    name: str
    table: pd.DataFrame
    scores: Callable[[str], pd.DataFrame | None]


def compare(x: Compared, y: Compared, seed: int, resamples: int = 1000) -> pd.DataFrame:
    """One row a cell that both studies have: full size, the rank or N that each study's training data chose.

    `difference` is AUC(y) - AUC(x). Where both studies scored test rows of the same id, label and group, the difference
    and its 95% interval are those of these `n_shared` rows alone, resampled by group for both studies at once;
    elsewhere it is the difference of the two tables' numbers, without an interval.

    Args:
        x: the study to start from.
        y: the study to compare with it.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        A table with the columns `COLUMNS`, in the order of y.

    Raises:
        UserError: no cell is in both.
    """
    cells_x, cells_y = _cells(x), _cells(y)
    both = cells_y.merge(cells_x, on=CELL, suffixes=("_y", "_x"))
    if not len(both):
        raise UserError(f"{x.name} and {y.name} have no cell in common; {_apart(cells_x, cells_y)}")
    rows = []
    for space, part in both.groupby("space", sort=False):
        paired = _Paired(_scores(x, str(space)), _scores(y, str(space)), seed, resamples)
        rows += [cell | paired.difference(cell) for cell in part.to_dict("records")]
    return pd.DataFrame(rows)[list(COLUMNS)]


def _cells(study: Compared) -> pd.DataFrame:
    rows = cells.full(cells.keyed(study.table))
    return rows.loc[rows["selected"], [*CELL, "n_train", "n_features", "auc"]].drop_duplicates(CELL)


def _apart(x: pd.DataFrame, y: pd.DataFrame) -> str:
    """The first column in which two studies share no name."""
    for column in CELL:
        mine, others = y[column].unique(), set(x[column])
        if not others & set(mine):
            return f"{column} {mine[0]}: {closest(str(mine[0]), sorted(map(str, others)))}"
    return "their datasets, spaces and probes are never the same together"


def _scores(study: Compared, space: str) -> dict[tuple[Any, ...], pd.DataFrame]:
    """By (train, test, variation, condition, key): one row a test row, of the cell's selected probe at full size."""
    table = study.scores(space)
    if table is None:
        return {}
    chosen = cells.keyed(table[table["selected"]])
    largest = chosen.groupby(["train", "test", "key"])["n_train"].transform("max")
    return dict(list(chosen[chosen["n_train"] == largest].groupby(CELL[1:])))


class _Paired:
    """Differences in one space; the bootstrap weights of a test set are made once for all of its cells."""

    def __init__(self, x: dict[Any, pd.DataFrame], y: dict[Any, pd.DataFrame], seed: int, resamples: int) -> None:
        self.x, self.y, self.seed, self.resamples = x, y, seed, resamples
        self.weights: dict[tuple[str, ...], Any] = {}

    def difference(self, cell: dict[Any, Any]) -> dict[str, Any]:
        place = tuple(cell[column] for column in CELL[1:])
        plain = {"n_shared": 0, "n_groups": 0, "difference": cell["auc_y"] - cell["auc_x"]}
        plain |= {"difference_low": np.nan, "difference_high": np.nan}
        if place not in self.x or place not in self.y:
            return plain | {"reason": "scores of its rows are not kept"}
        shared = self.x[place].merge(self.y[place], on=["id", "group", "label"], suffixes=("_x", "_y"))
        if not len(shared):
            return plain | {"reason": "no test row is shared"}
        return self._on(shared, str(cell["test"]))

    def _on(self, shared: pd.DataFrame, test: str) -> dict[str, Any]:
        labels, groups = shared["label"].to_numpy(), shared["group"].to_numpy().astype(str)
        rows = tuple(shared["id"])
        if rows not in self.weights:
            rng = rng_for(self.seed, "comparison", test)
            self.weights[rows] = intervals.group_weights(groups, self.resamples, rng)
        y, x = shared["score_y"].to_numpy(), shared["score_x"].to_numpy()
        drawn_y, drawn_x = (roc.weighted_auc(scores, labels, self.weights[rows]) for scores in (y, x))
        n_groups = intervals.effective_groups(labels, groups)
        found = intervals.difference_interval(roc.auc(y, labels), roc.auc(x, labels), drawn_y, drawn_x, n_groups)
        return {
            "n_shared": len(shared),
            "n_groups": len(np.unique(groups)),
            **found.columns("difference"),
            "reason": found.reason,
        }


def summarise_comparison(table: pd.DataFrame, x: str, y: str) -> list[str]:
    """What a comparison says, in sentences: for each space and kind of probe, where y is higher or lower than x."""
    lines = [f"AUC of {y} minus AUC of {x}, {len(table)} cells:"]
    for (space, key), part in table.groupby(["space", "key"], sort=False):
        up, down = int((part["difference_low"] > 0).sum()), int((part["difference_high"] < 0).sum())
        lines.append(
            f"{space:>12}  {key:<26} mean {part['difference'].mean():+.3f} over {len(part)} cells; "
            f"{y} higher in {up}, lower in {down} of {int(part['difference_low'].notna().sum())} with an interval"
        )
    return lines
