"""Views of the transfer table that figures and report share: which rows compare like with like, and cells as text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer.probing import kinds

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"


def keyed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `key`: the kind of probe, with its family where one kind has several."""
    pairs = zip(table["probe"], table["family"], strict=True)
    return table.assign(key=[kinds.key(kind, family) for kind, family in pairs])


def full(table: pd.DataFrame) -> pd.DataFrame:
    """The rows at full size: probes trained on as many rows as there are, on B's test split under whatever template."""
    rows = full_size(table)
    return rows[rows["condition"] == "test"]


def full_size(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of probes trained on as many rows as there are."""
    largest = table.groupby(["space", "train", "test", "probe"])["n_train"].transform("max")
    return table[table["n_train"] == largest]


def own_template(table: pd.DataFrame) -> pd.DataFrame:
    """The rows where B is asked under the template that it trains under."""
    template = dict(zip(table["train"], table["train_variation"], strict=True))
    return table[table["test_variation"] == table["test"].map(template)]


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """One row a (space, A, B, key): full size, own template, the rank or N that the training data chose."""
    rows = full(own_template(keyed(table)))
    return rows[rows["selected"]]


def datasets(table: pd.DataFrame) -> list[str]:
    """The names in study order. Tables are written by test set, so that order survives a missing row."""
    return list(dict.fromkeys([*table["test"], *table["train"]]))


def pairs(table: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """(space, key) in the table's order."""
    yield from keyed(table)[["space", "key"]].drop_duplicates().itertuples(index=False, name=None)


def is_control(key: str) -> bool:
    return kinds.role(key) == "control"


def panels(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(title, rows) for each SAE, its layer's residual stream beside it; a layer without an SAE stands alone."""
    table = table[table["layer"].notna()]
    layers = table[table["sae"] == ""]
    found = []
    for layer in table["layer"].unique():
        here = table[table["layer"] == layer]
        for sae in [name for name in here["sae"].unique() if name] or [""]:
            rows = here[here["sae"].isin(["", sae])]
            found.append((f"{sae} (layer {layer})" if sae else f"layer {layer}", rows))
    return found or [("", layers)]


@dataclass(frozen=True)
class Value:
    """A number with its interval, NaN where missing; `reason` says why. `signed` numbers are differences."""

    value: float
    low: float
    high: float
    reason: str = ""
    signed: bool = False

    @property
    def text(self) -> str:
        return number(self.value, signed=self.signed)

    @property
    def interval(self) -> str:
        if np.isnan(self.low):
            return "" if np.isnan(self.value) else MISSING
        joint = " to " if self.signed else "\N{EN DASH}"
        return joint.join(number(bound, signed=self.signed) for bound in (self.low, self.high))

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def number(value: float, digits: int = 2, *, signed: bool = False) -> str:
    if np.isnan(value):
        return MISSING
    value = round(value, digits) + 0.0  # no -0.00, no +0.00
    shown = f"{value:+.{digits}f}" if signed and value else f"{value:.{digits}f}"
    return shown.replace("-", MINUS)


@dataclass(frozen=True)
class Side:
    """A row or a column of a grid: the dataset, how many rows it has there, and what the probe on A chose."""

    name: str
    n: str
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """One key in one space, train x test: `values[i][j]`, on `sizes[i][j]` rows, is of `trains[i]` and `tests[j]`."""

    space: str
    key: str
    trains: list[Side]
    tests: list[Side]
    values: list[list[Value]]
    sizes: list[list[str]]


def grid(table: pd.DataFrame, space: str, key: str, column: str = "auc") -> Grid:
    """What a heatmap shows.

    Args:
        table: rows with the columns of the transfer table, unique names in study order.
        space: a value of its column `space`.
        key: a value of the column that `keyed` adds.
        column: `auc` or `delta_residual`.
    """
    return grid_of(headline(table), space, key, column)


def grid_of(rows: pd.DataFrame, space: str, key: str, column: str = "auc") -> Grid:
    """The grid of a space and key among the rows that `headline` gives."""
    names = datasets(rows)
    rows = rows[(rows["space"] == space) & (rows["key"] == key)]
    by_pair = {(row["train"], row["test"]): row for row in rows.to_dict("records")}
    values = [[value(by_pair.get((a, b)), column) for b in names] for a in names]
    return Grid(
        space,
        key,
        [_side(a, [by_pair[pair] for pair in by_pair if pair[0] == a], "n_train") for a in names],
        [_side(b, [by_pair[pair] for pair in by_pair if pair[1] == b], "n_test") for b in names],
        values,
        [[str(by_pair[a, b]["n_test"]) if (a, b) in by_pair else MISSING for b in names] for a in names],
    )


def value(row: dict[Any, Any] | None, column: str) -> Value:
    """One number of a row of the transfer table, with its interval where it has one, and its own part of `reason`."""
    if row is None:
        return Value(np.nan, np.nan, np.nan, "not measured")
    low, high = (row.get(f"{column}_{end}", np.nan) for end in ("low", "high"))
    parts = [part for part in str(row["reason"]).split("; ") if part.startswith(f"{column}: ")]
    reason = parts[0].removeprefix(f"{column}: ") if parts else ""
    return Value(float(row[column]), float(low), float(high), reason, signed=column.startswith("delta"))


def _side(dataset: str, rows: list[dict[Any, Any]], size: str) -> Side:
    if not rows:
        return Side(dataset, MISSING)
    row, note, sizes = rows[0], "", sorted({int(row[size]) for row in rows})
    if size == "n_train" and row["probe"] == "sparse_1" and row["feature_ids"]:
        note = f"feature {row['feature_ids']}"
    if size == "n_train" and row["probe"] == "sparse_n" and row["feature_ids"]:
        note = f"N = {row['n_features']}"
    # test sets differ in size where rows that stand among A's training rows are left out
    return Side(dataset, "\N{EN DASH}".join(map(str, dict.fromkeys((sizes[0], sizes[-1])))), note)
