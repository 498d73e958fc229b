"""The columns of the tables in results/: each is declared once, with its kind, what it says, and its unit.

One rule names estimates: `x`, `x_low` and `x_high` are a number and the bounds of its 95% interval.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

Kind = Literal["text", "ids", "flag", "integer", "number"]
DTYPES: dict[Kind, Any] = {"text": object, "ids": object, "flag": object, "integer": "Int64", "number": "float64"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `ids` are feature ids as text, separated by spaces; `flag` is true or false, empty where unknown.

    `heading` is its short name where the report shows it, by default the name; with `digits` decimals, `signed` where
    it is a difference.
    """

    name: str
    kind: Kind
    about: str
    unit: str = ""
    heading: str = ""
    digits: int = 2
    signed: bool = False


def estimate(
    name: str, about: str, unit: str = "", heading: str = "", digits: int = 2, *, signed: bool = False
) -> tuple[Column, Column, Column]:
    """The three columns of a number with its interval."""
    return (
        Column(name, "number", about, unit, heading, digits, signed),
        Column(f"{name}_low", "number", f"lower bound of the 95% interval of `{name}`", unit),
        Column(f"{name}_high", "number", f"upper bound of the 95% interval of `{name}`", unit),
    )


def texts(**about: str) -> list[Column]:
    """Several columns of text: name and what it says."""
    return [Column(name, "text", said) for name, said in about.items()]


def integers(**about: str) -> list[Column]:
    """Several columns of whole numbers."""
    return [Column(name, "integer", said) for name, said in about.items()]


def numbers(**about: str) -> list[Column]:
    """Several columns of numbers without an interval."""
    return [Column(name, "number", said) for name, said in about.items()]


ESTIMATED = ("name", "about", "unit", "heading", "digits", "signed")  # what `estimate` takes

REASON = Column("reason", "text", "why a number of this row is missing: `column: reason`, joined by `; `")


@dataclass(frozen=True)
class Table:
    """A table of results/: its name without `.csv`, what one row is, and its columns in order."""

    name: str
    row: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def pick(self, *names: str) -> list[Column]:
        """Some of the columns."""
        known = {column.name: column for column in self.columns}
        return [known[name] for name in names]

    def described(self) -> dict[str, Any]:
        """The table and its columns as plain JSON: what results/schema.json holds of it."""
        known = [{"name": c.name, "kind": c.kind, "about": c.about, "unit": c.unit} for c in self.columns]
        return {"table": self.name, "row": self.row, "columns": known}

    def frame(self, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
        """The rows as a table with these columns in this order; what a row lacks is missing.

        Raises:
            ValueError: a row has a column that is not declared.
        """
        listed = list(rows)
        unknown = {name for row in listed for name in row} - set(self.names)
        if unknown:
            raise ValueError(f"table {self.name}: undeclared columns {sorted(unknown)}")
        whole = [column.name for column in self.columns if column.kind == "integer"]
        found = pd.DataFrame(listed, columns=self.names)
        return found.astype({name: "Int64" for name in whole if found[name].isna().any()})


PAGE = """# The tables of results/

`dvc repro` writes a CSV file for each table. `make docs` writes this page from the code. The same descriptions stand in
results/schema.json, for programs.

- A and B are datasets: probes are trained on A and tested on B.
- Numbers have six significant digits. A missing number is empty, and the column `reason` says why.
- `x_low` and `x_high` after `x` bound its 95% interval.
- `ids` are feature ids, separated by spaces. A `flag` is True, False, or empty where it is unknown.
"""


def markdown(tables: Iterable[Table]) -> str:
    """The page docs/results.md: what the rows of every table are, and what its columns say."""
    return "\n".join([PAGE, *(_listed(table) for table in tables)])


def _listed(table: Table) -> str:
    rows, covered = [], set[str]()
    for column in table.columns:
        names = [column.name, *(f"{column.name}_{end}" for end in ("low", "high") if _has_interval(table, column))]
        if column.name not in covered:
            rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {column.kind} | {_cell(column)} |")
        covered |= {*names}
    title, row = f"## {table.name}.csv", f"{table.row[0].upper()}{table.row[1:]}."
    return "\n".join([title, row, "", "| column | kind | what it says |", "|---|---|---|", *rows, ""])


def _has_interval(table: Table, column: Column) -> bool:
    """Whether `estimate` made the column."""
    i = table.columns.index(column)
    return table.columns[i : i + 3] == estimate(**{name: getattr(column, name) for name in ESTIMATED})


def _cell(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.about}{unit}".replace("|", r"\|").replace("<", r"\<")
