"""What each analysis tells: sentences, figures and tables for the template `analysis.html`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sae_transfer import cells


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
class Table:
    caption: str
    headings: Sequence[Heading]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Analysis:
    """One section of the report."""

    id: str
    title: str
    lead: str
    told: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Column:
    """A column of a table of the report: a column of the frame, its heading, and the columns of its interval."""

    name: str
    heading: str = ""  # the name, unless given
    interval: tuple[str, str] | None = None
    digits: int = 2
    signed: bool = False


def tabulate(frame: pd.DataFrame, caption: str, columns: Sequence[Column]) -> Table:
    """A frame as a table of the report; numbers with their intervals beside them, the reason where one is missing."""
    numeric = {column.name: pd.api.types.is_numeric_dtype(frame[column.name]) for column in columns}
    numeric = {name: is_number and frame[name].dtype != bool for name, is_number in numeric.items()}
    headings = [Heading(column.heading or column.name, numeric[column.name]) for column in columns]
    rows = [[_cell(row, column, numeric[column.name]) for column in columns] for row in frame.to_dict("records")]
    return Table(caption, headings, rows)


def _cell(row: Mapping[Any, Any], column: Column, numeric: bool) -> Cell:
    value = row[column.name]
    if not numeric:
        return Cell("yes" if value is True else "no" if value is False else str(value))
    low, high = (row[name] for name in column.interval) if column.interval else (float("nan"), float("nan"))
    shown = cells.Value(float(value), float(low), float(high), str(row.get("reason", "")), signed=column.signed)
    whole = isinstance(value, int) or column.digits == 0
    text = str(int(value)) if whole and value == value else cells.number(value, column.digits, signed=column.signed)
    return Cell(
        text,
        shown.interval if column.interval else "",
        shown.reason if value != value or (column.interval and low != low) else "",
        None if value != value else float(value),
    )
