"""report: transfer tables and SAE health -> results/transfer.csv, results/metrics.json, figures and one page."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sae_transfer import config, features, figures, paths, report, stability, store
from sae_transfer.report import About
from sae_transfer.stages import run
from sae_transfer.stages.inputs import StudyParams


def make_report() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    spaces = [f"layer_{layer}" for layer in params["model"]["layers"]] + list(study.saes)
    tables = [store.read_table(paths.TRANSFER / f"{space}.parquet") for space in spaces]
    bootstrap = _joined(spaces, stability.COLUMNS)
    stable = _joined([f"{sae}_features" for sae in study.saes], stability.FEATURE_COLUMNS)
    table = stability.with_train_sd(pd.concat(tables, ignore_index=True), bootstrap)
    about = _about(params, study)
    numbers = report.summary(table)
    svgs = {}
    for name, figure in figures.draw(table):
        figures.save(figure, paths.FIGURES, name)
        svgs[name] = (paths.FIGURES / f"{name}.svg").read_text()
    for name, joined in (("transfer", table), ("bootstrap", bootstrap), ("bootstrap_features", stable)):
        # six digits are more than any number here is worth, and do not differ between platforms as the last bits do
        store.write_text(paths.RESULTS / f"{name}.csv", joined.to_csv(index=False, float_format="%.6g"))
    store.write_json(paths.RESULTS / "metrics.json", numbers)
    store.write_text(paths.REPORT / "index.html", report.page(table, numbers, svgs, about))
    print(f"open {paths.REPORT / 'index.html'} in a browser")


def _joined(names: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """The bootstrap's tables of several spaces, one below the other; a study without SAEs has no features."""
    tables = [store.read_table(paths.BOOTSTRAP_TABLES / f"{name}.csv") for name in names]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(columns))


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
