"""Views of the transfer table that figures and report share: which rows compare like with like, and cells as text."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

CONTROLS = ("shuffled_labels",)  # negative controls: what no signal looks like
BASELINES = ("pca", "reconstruction", "random_features", "random_sae", "text", "verbal", "target_trained")
WITH_FAMILY = (*CONTROLS, "random_features", "random_sae", "text", "target_trained")
PROBE_NAMES = {
    "residual": "residual stream probe",
    "mean_difference": "difference of means",
    "sparse_1": "1-sparse SAE probe",
    "sparse_n": "N-sparse SAE probe",
    "shuffled_labels_residual": "shuffled labels, residual stream",
    "shuffled_labels_sparse_1": "shuffled labels, 1-sparse",
    "shuffled_labels_sparse_n": "shuffled labels, N-sparse",
    "pca": "principal components",
    "reconstruction": "SAE reconstruction",
    "random_features_sparse_1": "a random SAE feature",
    "random_features_sparse_n": "N random SAE features",
    "random_sae_sparse_1": "random SAE, 1-sparse",
    "random_sae_sparse_n": "random SAE, N-sparse",
    "text_tfidf": "words of the prompt (TF-IDF)",
    "text_length": "length of the prompt",
    "text_overlap": "word overlap of question and context",
    "verbal": "the model's own words",
    "target_trained_residual": "trained on the target, residual stream",
    "target_trained_sparse_1": "trained on the target, 1-sparse",
    "target_trained_sparse_n": "trained on the target, N-sparse",
}
INTERVALS = {"auc": ("auc_low", "auc_high"), "delta_residual": ("delta_low", "delta_high")}
MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"


def name(key: str) -> str:
    return PROBE_NAMES.get(key, key.replace("_", " "))


def keyed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `key`: the kind of probe, with its family where one kind has several."""
    several = table["probe"].isin(WITH_FAMILY)
    return table.assign(key=table["probe"].where(~several, table["probe"] + "_" + table["family"]))


def without_baselines(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a heatmap: SAE probes, the residual stream's, and the negative controls."""
    return table[~table["probe"].isin(BASELINES)]


def full(table: pd.DataFrame) -> pd.DataFrame:
    """The rows at full size: probes trained on as many rows as there are, on B's test split under whatever template."""
    largest = table.groupby(["space", "train", "test", "probe"])["n_train"].transform("max")
    return table[(table["condition"] == "test") & (table["n_train"] == largest)]


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


def kinds(table: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """(space, key) in the table's order."""
    yield from keyed(table)[["space", "key"]].drop_duplicates().itertuples(index=False, name=None)


def is_control(key: str) -> bool:
    return key.startswith(CONTROLS)


def role(probe: str) -> str:
    """What a kind of probe is there for: `probe`, `baseline` or `control`."""
    return "control" if probe in CONTROLS else "baseline" if probe in BASELINES else "probe"


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
    """One key in one space, train x test: `values[i][j]` belongs to `trains[i]` and `tests[j]`."""

    space: str
    key: str
    trains: list[Side]
    tests: list[Side]
    values: list[list[Value]]


def grid(table: pd.DataFrame, space: str, key: str, column: str = "auc") -> Grid:
    """What a heatmap shows.

    Args:
        table: rows with the columns of the transfer table, unique names in study order.
        space: a value of its column `space`.
        key: a value of the column that `keyed` adds.
        column: `auc` or `delta_residual`.
    """
    rows = headline(table)
    rows = rows[(rows["space"] == space) & (rows["key"] == key)]
    by_pair = {(row["train"], row["test"]): row for row in rows.to_dict("records")}
    names = datasets(table)
    values = [[value(by_pair.get((a, b)), column) for b in names] for a in names]
    return Grid(
        space,
        key,
        [_side(a, [by_pair[pair] for pair in by_pair if pair[0] == a], "n_train") for a in names],
        [_side(b, [by_pair[pair] for pair in by_pair if pair[1] == b], "n_test") for b in names],
        values,
    )


def value(row: dict[Any, Any] | None, column: str) -> Value:
    """One number of a row of the transfer table, with its interval where it has one, and its own part of `reason`."""
    if row is None:
        return Value(np.nan, np.nan, np.nan, "not measured")
    low, high = (row[bound] for bound in INTERVALS[column]) if column in INTERVALS else (np.nan, np.nan)
    parts = [part for part in str(row["reason"]).split("; ") if part.startswith(f"{column}: ")]
    reason = parts[0].removeprefix(f"{column}: ") if parts else ""
    return Value(float(row[column]), float(low), float(high), reason, signed=column.startswith("delta"))


def _side(dataset: str, rows: list[dict[Any, Any]], size: str) -> Side:
    if not rows:
        return Side(dataset, MISSING)
    row, note = rows[0], ""
    if size == "n_train" and row["probe"] == "sparse_1":
        note = f"feature {row['feature_ids']}"
    if size == "n_train" and row["probe"] == "sparse_n":
        note = f"N = {row['n_features']}"
    return Side(dataset, str(row[size]), note)
