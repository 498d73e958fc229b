"""report: transfer tables and SAE health -> results/transfer.csv, results/metrics.json, figures and one page."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sae_transfer import config, features, figures, paths, report, store
from sae_transfer.report import About
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams


def make_report() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    tables = [store.read_table(paths.TRANSFER / f"{space}.parquet") for space in inputs.spaces(params)]
    table = pd.concat([part for part in tables if len(part)], ignore_index=True)
    about = _about(params, study)
    numbers = report.summary(table)
    svgs = {}
    for name, figure in figures.draw(table):
        figures.save(figure, paths.FIGURES, name)
        svgs[name] = (paths.FIGURES / f"{name}.svg").read_text()
    # six digits are more than any number here is worth, and do not differ between platforms as the last bits do
    store.write_text(paths.RESULTS / "transfer.csv", table.to_csv(index=False, float_format="%.6g"))
    store.write_json(paths.RESULTS / "metrics.json", numbers)
    store.write_text(paths.REPORT / "index.html", report.page(table, numbers, svgs, about))
    print(f"open {paths.REPORT / 'index.html'} in a browser")


def _about(params: Mapping[str, Any], study: StudyParams) -> About:
    model = params["model"]
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
        demo=str(model["name"]).startswith("models/demo"),
    )


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _source(dataset: Mapping[str, Any]) -> str:
    return f"{dataset['path']} ({dataset['loader']})"


if __name__ == "__main__":
    run(make_report)
