"""docs/results.md is what the code says of the tables of results/."""

import re
from pathlib import Path

from sae_transfer.analyses.analysis_registry import TABLES
from sae_transfer.results.schema import Column, Table, estimate, markdown

PAGE = Path(__file__).parents[2] / "docs/results.md"


def test_the_page_is_what_the_code_gives():
    assert PAGE.read_text() == markdown(TABLES.values()), "docs/results.md is out of date; `make docs` writes it anew"


def test_every_column_of_every_table_is_on_the_page():
    sections = dict(part.split(".csv\n", 1) for part in PAGE.read_text().split("## ")[1:])
    cells = {name: [row.split(" | ")[0] for row in text.splitlines()] for name, text in sections.items()}
    listed = {name: [x for cell in of for x in re.findall("`(.+?)`", cell)] for name, of in cells.items()}
    assert listed == {name: table.names for name, table in TABLES.items()}


def test_a_number_and_its_interval_share_a_line_and_a_bar_does_not_end_a_cell():
    lone = Column("y_low", "number", "quantile of |y| for layer_<L>", "s")
    page = markdown([Table("made_up", "one row a pair", (*estimate("x", "a share"), lone))])
    assert "## made_up.csv\nOne row a pair.\n" in page
    assert "| `x`, `x_low`, `x_high` | number | a share |\n" in page
    assert page.endswith("| `y_low` | number | quantile of \\|y\\| for layer_\\<L> (s) |\n")
