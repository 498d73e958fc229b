"""The tables of results/ read back from CSV, each column as its schema says."""

from pathlib import Path

import pandas as pd

from sae_transfer.core.errors import UserError
from sae_transfer.core.files import damaged, missing
from sae_transfer.results.schema import Column, Table


def read(path: Path, table: Table, name: str = "") -> pd.DataFrame:
    """A table of results/: text that is missing is empty, a number NaN, a whole number or a flag <NA>.

    Args:
        path: of the CSV.
        table: its columns.
        name: what to call it in a message; the path unless given.

    Raises:
        UserError: the file is missing or damaged, or another version of the project wrote it.
    """
    try:
        # as text first: a dataset named 2024, null or NA is a name, and "17" can be a list of one feature
        found = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise damaged(path, error) from None
    if lacking := [column for column in table.names if column not in found]:
        raise UserError(
            f"{name or path}: lacks {', '.join(lacking)}: another version wrote it; run `dvc repro` with this one"
        )
    try:
        return pd.DataFrame({column.name: _typed(found[column.name], column) for column in table.columns})
    except ValueError as error:
        raise damaged(path, error) from None


def _typed(values: "pd.Series[str]", column: Column) -> pd.Series:
    if column.kind in ("text", "ids"):
        return values
    if column.kind == "flag":
        flags = values.map({"True": True, "False": False, "": pd.NA}).astype("boolean")
        return flags if flags.isna().any() else flags.astype(bool)
    numbers = pd.to_numeric(values.where(values != "", None))
    if column.kind == "number":
        return numbers.astype("float64")
    return numbers.astype("Int64") if numbers.isna().any() else numbers.astype("int64")
