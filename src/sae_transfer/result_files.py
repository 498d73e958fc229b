"""The tables of results/ as CSV: one home of how text, lists of features and missing values are read back."""

from pathlib import Path

import pandas as pd

from sae_transfer.records import UserError
from sae_transfer.store import damaged, missing
from sae_transfer.transfer import COLUMNS

# Tables of the analyses, by the name of their file under results/, in the order in which the report tells them.
ANALYSES = (
    *("bootstrap", "bootstrap_features", "oracle_gap", "predictors", "policies", "calibration", "variations"),
    *("similarity", "saes", "splitting", "matches", "length", "regimes"),
)
# Text, also where every row is empty or looks like a number (a dataset named 2024).
WORDS = (
    *("model", "space", "sae", "train", "test", "train_variation", "test_variation", "condition", "probe", "family"),
    *("scaling", "ranking", "reason", "held_out", "role", "verdict"),
)
LISTS = ("feature_ids", "oracle_feature_ids")  # "17" is a list of one feature, and no number


def read(path: Path) -> pd.DataFrame:
    """A table of results/. Lists of features are text; text that is missing is empty, a number NaN.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys((*LISTS, *WORDS), str), keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise damaged(path, error) from None
    if "layer" in table:
        table["layer"] = table["layer"].astype("Int64")  # whole numbers also where text has no layer
    text = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    return table.fillna(dict.fromkeys([*text, *(name for name in WORDS if name in table)], ""))


def read_transfer(path: Path, name: str = "") -> pd.DataFrame:
    """The joined transfer table.

    Args:
        path: of transfer.csv.
        name: what to call it in a message; the path unless given.

    Raises:
        UserError: as `read`, or the table was made by another version of the project.
    """
    table = read(path)
    lacking = [column for column in COLUMNS if column not in table]
    if lacking or table.empty:
        what = f"lacks {', '.join(lacking)}" if lacking else "has no rows"
        raise UserError(
            f"{name or path}: the transfer table {what}: another version wrote it; run `dvc repro` with this one"
        )
    return table
