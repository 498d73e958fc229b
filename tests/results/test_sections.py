"""Tables of the report carry intervals, reasons and what to sort by."""

import numpy as np
import pandas as pd

from sae_transfer.results.schema import Column
from sae_transfer.results.sections import Cell, look_up


def test_a_table_carries_intervals_reasons_and_what_to_sort_by():
    frame = pd.DataFrame(
        {"space": ["a", "b"], "auc": [0.5, np.nan], "n": [3, 4], "gap": [-0.1, 0.2], "good": [True, False]}
    )
    frame = frame.assign(auc_low=[0.4, np.nan], auc_high=[0.6, np.nan], reason=["", "one class"])
    columns = [
        Column("space", "text", ""),
        Column("auc", "number", "", heading="AUC"),
        Column("n", "integer", ""),
        Column("gap", "number", "", signed=True, digits=3),
        Column("good", "flag", ""),
    ]
    made = look_up(frame, "A table", columns)
    assert made.caption == "A table"
    assert [(heading.text, heading.numeric) for heading in made.headings] == [
        ("space", False),
        ("AUC", True),
        ("n", True),
        ("gap", True),
        ("good", False),
    ]
    assert made.rows[0] == [
        Cell("a"),
        Cell("0.50", "0.40–0.60", "", 0.5),
        Cell("3", sort=3),
        Cell("−0.100", sort=-0.1),
        Cell("yes"),
    ]
    assert made.rows[1][1:] == [
        Cell("–", "", "one class"),
        Cell("4", sort=4),
        Cell("+0.200", sort=0.2),
        Cell("no"),
    ]


def test_a_number_without_its_interval_says_why():
    frame = pd.DataFrame({"auc": [0.5], "auc_low": [np.nan], "auc_high": [np.nan], "reason": ["5 groups"]})
    assert look_up(frame, "", [Column("auc", "number", "")]).rows == [[Cell("0.50", "–", "5 groups", 0.5)]]


def test_a_whole_number_that_is_missing_is_a_dash():
    frame = pd.DataFrame({"n": pd.array([7, pd.NA], dtype="Int64")})
    assert look_up(frame, "", [Column("n", "integer", "")]).rows == [[Cell("7", sort=7)], [Cell("–")]]
