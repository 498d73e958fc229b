"""report: the tables of results/, SAE health, prompts and scores -> results/metrics.json, figures and one page."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from sae_transfer import config, features, figures, neuronpedia, paths, report, result_files, store
from sae_transfer.features import SaeParams
from sae_transfer.report import About, Behaviour, best_features, numbers
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams

PROCESSES = 2  # to draw in


def make_report() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    table = result_files.read_transfer(paths.RESULTS / "transfer.csv")
    analyses = {name: result_files.read(paths.RESULTS / f"{name}.csv") for name in result_files.ANALYSES}
    names = list(figures.drawings(table) | figures.drawings_of_analyses(analyses))
    parts = [delayed(_draw)(table, analyses, names[i::PROCESSES]) for i in range(PROCESSES)]
    # not joblib's own workers: they live on, in the folder where they began
    drawn = [name for part in Parallel(n_jobs=PROCESSES, backend="multiprocessing")(parts) for name in part]
    svgs = {name: (paths.FIGURES / f"{name}.svg").read_text() for name in drawn}
    page = report.page(table, svgs, _about(params, study, table), analyses)
    store.write_json(paths.RESULTS / "metrics.json", numbers.summary(table) | numbers.of_analyses(analyses))
    store.write_text(paths.REPORT / "index.html", page)
    print(f"open {paths.REPORT / 'index.html'} in a browser")


def _draw(table: pd.DataFrame, analyses: Mapping[str, pd.DataFrame], names: Sequence[str]) -> list[str]:
    """Draws those figures, and names those that show anything."""
    drawings = figures.drawings(table) | figures.drawings_of_analyses(analyses)
    shown = []
    for name in names:
        figure = drawings[name]()
        if figure.axes:
            figures.save(figure, paths.FIGURES, name)
            shown.append(name)
    return shown


def _about(params: Mapping[str, Any], study: StudyParams, table: pd.DataFrame) -> About:
    model = params["model"]
    prompts = {name: inputs.prompt_table(name) for name in study.datasets}
    told = ("layers", "dtype", "position", "chat_template")
    return About(
        model=str(model["name"]),
        settings={name.replace("_", " "): _words(model[name]) for name in told if name in model}
        | {"seed": str(params["seed"])},
        sources={name: _source(params["datasets"][name]) for name in study.datasets},
        health={
            sae: {dataset: features.read_health(paths.FEATURES / dataset, sae) for dataset in study.datasets}
            for sae in study.saes
        },
        hashes=_hashes(study.datasets),
        behaviour={
            sae: _behaviour(sae, table, prompts, config.section(params, SaeParams, "saes", sae)) for sae in study.saes
        },
        demo=str(model["name"]).startswith("models/demo"),
    )


def _hashes(datasets: Sequence[str]) -> dict[str, str]:
    """What pins the model's weights and each dataset's prompts."""
    made = {name: store.read_json(paths.ACTIVATIONS / name / "identity.json") for name in datasets}
    first = next(iter(made.values()))
    pinned = first["revision"] or first["weights_sha256"]
    hashes = {"revision" if first["revision"] else "weights, sha256": str(pinned)}
    hashes |= {f"prompts of {name}, sha256": str(about["prompts_sha256"]) for name, about in made.items()}
    return hashes | {name: str(first[name]) for name in ("torch", "transformers")}


def _behaviour(sae: str, table: pd.DataFrame, prompts: Mapping[str, pd.DataFrame], params: SaeParams) -> Behaviour:
    rows = {name: features.read(paths.FEATURES / name, sae) for name in prompts}
    scores = store.read_table(paths.SCORES / f"{sae}.parquet")
    return best_features.behaviour(rows, prompts, scores, best_features.shown(table, sae), neuronpedia.id_of(params))


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _source(dataset: Mapping[str, Any]) -> str:
    return f"{dataset['path']} ({dataset['loader']})"


if __name__ == "__main__":
    run(make_report)
