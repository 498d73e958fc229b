"""What a study found, on one page that needs no network. Pure functions."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from sae_transfer.artifacts.features import Health
from sae_transfer.probing import kinds
from sae_transfer.report.best_features import Behaviour, listed
from sae_transfer.report.figures import drawings
from sae_transfer.report.figures.heatmaps import colours
from sae_transfer.report.heatmap_tables import beside, heatmaps
from sae_transfer.results import cells
from sae_transfer.results.headline import ALL, headline
from sae_transfer.results.sections import Section
from sae_transfer.results.verdict import Verdict

PAPER = (  # (in the paper, here, section)
    ("AUC of the best SAE features, in domain and out of domain", "1-sparse heatmaps", "transfer"),
    ("residual stream probes, in domain and out of domain", "residual stream heatmaps", "transfer"),
    ("SAE features against residual stream probes", "paired differences", "difference"),
    ("N-sparse probes: AUC by the number of features", "How many features", "n"),
    ("which features are selected", "Which features", "features"),
    ("the variance of residual stream probes over training samples", "How sure are we", "sure"),
    ("good features exist, and the standard selection misses them", "Was there a better feature", "gap"),
    ("prompt variations", "Does the wording of the prompt matter", "variations"),
    (
        "similarity of features, their combinations and probes",
        "How near do features lie to the linear probe",
        "similarity",
    ),
    ("asked for next: ways to predict which features generalise", "What predicts", "predict"),
)


@dataclass(frozen=True)
class About:
    """What was run.

    `settings` and `hashes` are told as they are; `sources` by dataset; `health` by SAE, then by dataset; `behaviour` of
    its best features by SAE.
    """

    model: str
    settings: Mapping[str, str]
    sources: Mapping[str, str]
    health: Mapping[str, Mapping[str, Health]]
    hashes: Mapping[str, str] = field(default_factory=dict)
    behaviour: Mapping[str, Behaviour] = field(default_factory=dict)
    demo: bool = False


def page(
    table: pd.DataFrame, svgs: Mapping[str, str], about: About, verdict: Verdict, sections: Sequence[Section] = ()
) -> str:
    """The report as one HTML page.

    Args:
        table: the transfer table of every space.
        svgs: SVG text by the names that `drawings.of_transfer` and `drawings.of_analyses` give, without the heatmaps,
            which the page has as tables.
        about: what was run.
        sections: what the analyses tell.
    """
    environment = Environment(
        loader=PackageLoader("sae_transfer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "probe": kinds.label}
    images = {
        name: "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode() for name, svg in svgs.items()
    }
    numbers = {
        str(space): {row["key"]: row for row in part.to_dict("records")}
        for space, part in headline(table).groupby("space", sort=False)
        if space != ALL
    }
    shown = cells.without_baselines(table)
    return environment.get_template("report.html").render(
        about=about,
        contents=_contents(sections),
        analyses=sections,
        paper=PAPER,
        there={id for id, _ in _contents(sections)},
        findings=verdict.lines,
        datasets=_datasets(table),
        names=cells.datasets(table),
        heats=[row | {"beside": beside(numbers, row["spaces"])} for row in heatmaps(shown, "auc")],
        differences=list(heatmaps(shown, "delta_residual")),
        features=[listed(table, sae, about.behaviour.get(sae, Behaviour())) for sae in table["sae"].unique() if sae],
        numbers={s: {k: v for k, v in of_space.items() if not cells.is_control(k)} for s, of_space in numbers.items()},
        controls={s: {k: v for k, v in of_space.items() if cells.is_control(k)} for s, of_space in numbers.items()},
        images=images,
        varied=drawings.varied(table),
        scale=[(*colours(step / 10, "auc"), f"{step / 10:.1f}") for step in range(11)],
    )


def _contents(sections: Sequence[Section]) -> list[tuple[str, str]]:
    first = [("run", "What was run"), ("transfer", "Transfer"), ("difference", "Against the residual probe")]
    first += [("ood", "In domain and out"), ("n", "How many features"), ("features", "Which features")]
    last = [("doubt", "What to doubt"), ("paper", "The paper's figures"), ("read", "How to read it")]
    return first + [(section.id, section.title) for section in sections] + last


def _number(value: float | None, digits: int = 2) -> str:
    return cells.number(float("nan") if value is None else value, digits)


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
