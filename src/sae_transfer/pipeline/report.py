"""report: the tables of results/, SAE health, prompts and scores -> report/index.html and its figures."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from sae_transfer.analyses import stability
from sae_transfer.analyses.analysis_registry import ANALYSES, TABLES
from sae_transfer.core import files, paths
from sae_transfer.core.space import Space
from sae_transfer.model import neuronpedia
from sae_transfer.pipeline import stage
from sae_transfer.pipeline.study import Study
from sae_transfer.report import best_features
from sae_transfer.report.best_features import Behaviour
from sae_transfer.report.figures import drawings
from sae_transfer.report.page import About, page
from sae_transfer.results.sections import Section

DEMO = "models/demo"
SETTINGS = ("layers", "dtype", "position", "chat_template")


def run(study: Study) -> None:
    """Draws the figures in parallel and writes the page."""
    tables = {name: study.table(name) for name in TABLES}
    transfer, jobs = tables["transfer"], stage.jobs(study.params.jobs)
    names = list(drawings.of_transfer(transfer) | drawings.of_analyses(tables))
    # not joblib's own workers: they live on, in the folder where they began
    parts = [delayed(_draw)(study, tables, names[i::jobs]) for i in range(jobs)]
    drawn = [name for part in Parallel(n_jobs=jobs, backend="multiprocessing")(parts) for name in part]
    svgs = {name: (study.path(paths.FIGURES) / f"{name}.svg").read_text(encoding="utf-8") for name in drawn}
    text = page(transfer, svgs, about(study, transfer), study.verdict(), sections(tables))
    files.write_text(study.path(paths.REPORT) / "index.html", text)
    print(f"open {paths.REPORT / 'index.html'} in a browser")


def sections(tables: Mapping[str, pd.DataFrame]) -> list[Section]:
    """What the analyses tell, of those whose tables have rows."""
    there = {name: table for name, table in tables.items() if len(table)}
    tellers = {"bootstrap": stability.section} | {
        name: analysis.section for name, analysis in ANALYSES.items() if analysis.section
    }
    return [tell(there) for name, tell in tellers.items() if name in there and tell]


def _draw(study: Study, tables: Mapping[str, pd.DataFrame], names: Sequence[str]) -> list[str]:
    """Draws those figures, and names those that show anything."""
    known = drawings.of_transfer(tables["transfer"]) | drawings.of_analyses(tables)
    shown = []
    for name in names:
        figure = known[name]()
        if figure.axes:
            drawings.save(figure, study.path(paths.FIGURES), name)
            shown.append(name)
    return shown


def about(study: Study, table: pd.DataFrame) -> About:
    """What was run, and how the best features of each SAE behave."""
    model = study.params.model
    chosen = {name.replace("_", " "): _words(getattr(model, name)) for name in SETTINGS}
    return About(
        model=model.name,
        settings=chosen | {"seed": str(study.seed)},
        sources={name: _source(study, name) for name in study.datasets},
        health={space.sae: {name: study.health(space, name) for name in study.datasets} for space in study.saes},
        hashes=_hashes(study),
        behaviour={space.sae: _behaviour(study, space, table) for space in study.saes},
        demo=model.name.startswith(DEMO),
    )


def _hashes(study: Study) -> dict[str, str]:
    """What pins the model's weights and each dataset's prompts."""
    made = {name: study.about_activations(name) for name in study.datasets}
    first = made[study.datasets[0]]
    pinned = first["revision"] or first["weights_sha256"]
    hashes = {"revision" if first["revision"] else "weights, sha256": str(pinned)}
    hashes |= {f"prompts of {name}, sha256": str(about["prompts_sha256"]) for name, about in made.items()}
    return hashes | {name: str(first[name]) for name in ("torch", "transformers")}


def _behaviour(study: Study, space: Space, table: pd.DataFrame) -> Behaviour:
    rows = {name: study.matrix(space, name) for name in study.datasets}
    prompts = {name: study.prompts(name) for name in study.datasets}
    link = partial(neuronpedia.link, neuronpedia.id_of(study.params.saes[space.sae]))
    return best_features.behaviour(rows, prompts, study.scores(space), best_features.shown(table, space.sae), link)


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _source(study: Study, name: str) -> str:
    dataset = study.params.datasets[name]
    return f"{dataset.path} ({dataset.loader})"
