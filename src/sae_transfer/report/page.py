"""What a study found, on one page that needs no network. Pure functions of the tables of results/."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from sae_transfer.probing import kinds
from sae_transfer.report import heatmap_tables, transfer_sections
from sae_transfer.report.best_features import Link, listed
from sae_transfer.results import cells
from sae_transfer.results.headline import ALL
from sae_transfer.results.sections import Section, Tables
from sae_transfer.results.verdict import Verdict


@dataclass(frozen=True)
class About:
    """What was run: `settings` and `hashes` are told as they are; `sources` by dataset; `link` leads to features."""

    model: str
    settings: Mapping[str, str]
    sources: Mapping[str, str]
    hashes: Mapping[str, str] = field(default_factory=dict)
    link: Link = lambda _sae, _feature: ""


def page(tables: Tables, svgs: Mapping[str, str], about: About, verdict: Verdict, sections: Sequence[Section]) -> str:
    """The report as one HTML page.

    Args:
        tables: those of results/ that have rows.
        svgs: SVG text by the names that `drawings` gives, without the heatmaps, which the page has as tables.
        about: what was run.
        verdict: its first screen.
        sections: what the analyses tell.
    """
    environment = Environment(
        loader=PackageLoader("sae_transfer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": cells.number, "probe": kinds.label, "share": _share}
    images = {
        name: "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode() for name, svg in svgs.items()
    }
    transfer = tables["transfer"]
    own = (transfer_sections.against_residual(tables, verdict), transfer_sections.how_many(tables))
    sections = [*(section for section in own if section), *sections]
    cards = heatmap_tables.cards(transfer)
    return environment.get_template("report.html").render(
        about=about,
        verdict=verdict,
        cards=cards,
        first=next((card for card in cards if card.grid.key == "sparse_1"), cards[0]),
        choices=_choices(cards),
        scales={column: list(heatmap_tables.scale(column)) for column in heatmap_tables.MEASURES},
        measures=heatmap_tables.MEASURES,
        features=[listed(transfer, _examples(tables), sae, about.link) for sae in transfer["sae"].unique() if sae],
        main=[section for section in sections if not section.aside],
        aside=[section for section in sections if section.aside],
        datasets=_datasets(transfer),
        health=_health(tables),
        names=cells.datasets(transfer),
        control=transfer_sections.control(tables["headline"]),
        images=images,
    )


def _examples(tables: Tables) -> pd.DataFrame:
    return tables.get("examples", pd.DataFrame(columns=["sae", "train", "rank", "what"]))


def _choices(cards: Sequence[heatmap_tables.Card]) -> dict[str, list[tuple[str, str]]]:
    """(value, text) of what the page's lists choose from."""
    saes = list(dict.fromkeys(sae for card in cards for sae in card.saes))
    keys = dict.fromkeys(card.grid.key for card in cards)
    order = sorted(keys, key=lambda key: (key != "sparse_1", key != "sparse_n"))
    return {
        "sae": [(sae, "mean over SAEs" if sae == ALL else sae) for sae in saes],
        "key": [(key, kinds.label(key)) for key in order],
        "column": list(heatmap_tables.MEASURES.items()),
    }


def _share(value: float) -> str:
    return cells.MISSING if value != value else f"{value:.0%}"


def _health(tables: Tables) -> dict[str, dict[str, dict[Any, Any]]]:
    """By SAE, then by dataset: the rows of results/health.csv."""
    rows = tables["health"].to_dict("records") if "health" in tables else []
    return {
        sae: {row["dataset"]: row for row in rows if row["sae"] == sae} for sae in dict.fromkeys(r["sae"] for r in rows)
    }


def _datasets(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = cells.full(table)
    rows = rows[rows["in_domain"]].drop_duplicates("train")
    templates = table[table["condition"] == "test"].groupby("test")["test_variation"].unique()
    return [
        {
            "name": row["train"],
            "n_train": row["n_train"],
            "n_test": row["n_test"],
            "n_groups": row["n_groups"],
            "template": row["train_variation"],
            "variations": [t for t in templates[row["train"]] if t != row["train_variation"]],
        }
        for row in rows.to_dict("records")
    ]
