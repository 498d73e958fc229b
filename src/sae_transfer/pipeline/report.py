"""report: the tables of results/ -> report/index.html and its figures."""

from collections.abc import Sequence
from typing import Any

from joblib import Parallel, delayed

from sae_transfer.analyses import stability
from sae_transfer.analyses.analysis_registry import ANALYSES, TABLES
from sae_transfer.core import files, paths
from sae_transfer.model import neuronpedia
from sae_transfer.pipeline import stage
from sae_transfer.pipeline.study import Study
from sae_transfer.report.figures import drawings
from sae_transfer.report.page import About, page
from sae_transfer.results.sections import Section, Tables

SETTINGS = ("layers", "dtype", "position", "chat_template")


def run(study: Study) -> None:
    """Draws the figures in parallel and writes the page."""
    tables = {name: table for name in TABLES if len(table := study.table(name))}
    jobs = stage.jobs(study.params.jobs)
    names = list(drawings.every(tables))
    # not joblib's own workers: they live on, in the folder where they began
    parts = [delayed(_draw)(study, tables, names[i::jobs]) for i in range(jobs)]
    drawn = [name for part in Parallel(n_jobs=jobs, backend="multiprocessing")(parts) for name in part]
    shown = [name for name in drawn if not name.startswith(("heatmap_", "difference_"))]  # the page has those as tables
    svgs = {name: (study.path(paths.FIGURES) / f"{name}.svg").read_text(encoding="utf-8") for name in shown}
    text = page(tables, svgs, about(study), study.verdict(), sections(tables))
    files.write_text(study.path(paths.REPORT) / "index.html", text)
    print(f"open {paths.REPORT / 'index.html'} in a browser")


def sections(tables: Tables) -> list[Section]:
    """What the analyses tell, of those whose tables have rows."""
    tellers = {name: analysis.section for name, analysis in ANALYSES.items()} | {"bootstrap": stability.section}
    return [tell(tables) for name, tell in tellers.items() if name in tables and tell]


def _draw(study: Study, tables: Tables, names: Sequence[str]) -> list[str]:
    """Draws those figures, and names those that show anything."""
    known, shown = drawings.every(tables), []
    for name in names:
        figure = known[name]()
        if figure.axes:
            drawings.save(figure, study.path(paths.FIGURES), name)
            shown.append(name)
    return shown


def about(study: Study) -> About:
    """What was run."""
    model = study.params.model
    chosen = {name.replace("_", " "): _words(getattr(model, name)) for name in SETTINGS}
    pages = {name: neuronpedia.id_of(study.params.saes[name]) for name in study.params.study.saes}
    return About(
        model=model.name,
        settings=chosen | {"seed": str(study.seed)},
        sources={name: _source(study, name) for name in study.datasets},
        hashes=_hashes(study),
        link=lambda sae, feature: neuronpedia.link(pages[sae], feature),
    )


def _hashes(study: Study) -> dict[str, str]:
    """What pins the model's weights and each dataset's prompts."""
    made = {name: study.about_activations(name) for name in study.datasets}
    first = made[study.datasets[0]]
    pinned = first["revision"] or first["weights_sha256"]
    hashes = {"revision" if first["revision"] else "weights, sha256": str(pinned)}
    hashes |= {f"prompts of {name}, sha256": str(about["prompts_sha256"]) for name, about in made.items()}
    return hashes | {name: str(first[name]) for name in ("torch", "transformers")}


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _source(study: Study, name: str) -> str:
    dataset = study.params.datasets[name]
    return f"{dataset.path} ({dataset.loader})"
