"""What a table tells in the report: a section of sentences, pictures and tables to look things up in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sae_transfer.results import cells
from sae_transfer.results.schema import Column
from sae_transfer.results.words import words

LONGEST = 14  # rows
Tables = Mapping[str, pd.DataFrame]  # by the name of the file under results/, without its ending


@dataclass(frozen=True)
class Picture:
    """A figure's file name, and what it shows for those who cannot see it."""

    name: str
    alt: str


@dataclass(frozen=True)
class Heading:
    text: str
    numeric: bool


@dataclass(frozen=True)
class Cell:
    """`text` as shown, `small` beside it, `hint` when pointed at; the number to sort by, None to sort by the text."""

    text: str
    small: str = ""
    hint: str = ""
    sort: float | None = None


@dataclass(frozen=True)
class LookUp:
    """A table of the report, to look numbers up in."""

    caption: str
    headings: Sequence[Heading]
    rows: Sequence[Sequence[Cell]]

    @property
    def short(self) -> bool:
        """Whether it can be shown without a fold."""
        return len(self.rows) <= LONGEST


@dataclass(frozen=True)
class Section:
    """One section of the report: a question, its answer in a sentence, a picture and a table.

    The first of `pictures` and of `tables` are shown. `lead` says how it was measured; it, what is `told` beside the
    claim, and the other pictures and tables stand behind a fold. `source` names the table of results/ with every row.
    An `aside` section stands behind a fold as a whole.
    """

    id: str
    title: str
    claim: str
    lead: str
    source: str
    told: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[LookUp] = ()
    aside: bool = False


def look_up(frame: pd.DataFrame, caption: str, columns: Sequence[Column]) -> LookUp:
    """Columns of a frame as a table of the report.

    A number `x` has its interval beside it where the frame has `x_low` and `x_high`, a missing one its reason.
    """
    numeric = {
        column.name: pd.api.types.is_numeric_dtype(frame[column.name]) and frame[column.name].dtype != bool
        for column in columns
    }
    headings = [Heading(column.heading or column.name, numeric[column.name]) for column in columns]
    rows = [[_cell(row, column, numeric[column.name]) for column in columns] for row in frame.to_dict("records")]
    return LookUp(caption, headings, rows)


def _cell(row: Mapping[Any, Any], column: Column, numeric: bool) -> Cell:
    value = row[column.name]
    if not numeric:
        return Cell("yes" if value is True else "no" if value is False else words(column.name, str(value)))
    if pd.isna(value):
        value = float("nan")
    bounds = f"{column.name}_low" in row
    low, high = (float(row[f"{column.name}_{end}"]) if bounds else float("nan") for end in ("low", "high"))
    shown = cells.Value(float(value), low, high, str(row.get("reason", "")), signed=column.signed)
    whole = column.kind == "integer" or isinstance(value, int)
    text = str(int(value)) if whole and value == value else cells.number(value, column.digits, signed=column.signed)
    return Cell(
        text,
        shown.interval if bounds else "",
        shown.reason if value != value or (bounds and low != low) else "",
        None if value != value else float(value),
    )
