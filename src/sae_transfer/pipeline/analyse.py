"""analyse: every analysis, part by part -> artifacts/analyses/<analysis>/<part>.parquet, and all tables of results/."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sae_transfer.analyses import stability
from sae_transfer.analyses.analysis import Analysis
from sae_transfer.analyses.analysis_registry import ANALYSES, TABLES
from sae_transfer.core import files, hashing, items, paths
from sae_transfer.core.items import Item
from sae_transfer.pipeline import counting, stage
from sae_transfer.pipeline.fit import CODE as FIT_CODE
from sae_transfer.pipeline.study import Study
from sae_transfer.results import headline, verdict, warnings
from sae_transfer.results.schema import Table
from sae_transfer.results.transfer_table import TRANSFER

CODE = (*FIT_CODE, "results")
READS = (paths.PROMPTS, paths.ACTIVATIONS, paths.FEATURES, paths.PROBES, paths.TRANSFER, paths.RESAMPLES)


def run(study: Study) -> None:
    """Computes the parts that are missing or out of date, then writes the tables."""
    folder, recipe = study.path(paths.ANALYSES), hashing.code(*CODE)
    read = {place.name: hashing.digest(items.made(study.path(place))) for place in READS}
    wanted: dict[str, list[Item]] = {}
    for name in sorted(ANALYSES, key=wave):
        inputs = _inputs(study, ANALYSES[name]) | {"read": read}
        inputs["after"] = [[item.identity(recipe) for item in wanted[other]] for other in ANALYSES[name].after]
        wanted[name] = [
            Item(f"{name}/{part}", (study, name, part), inputs, wave=wave(name)) for part in ANALYSES[name].parts(study)
        ]
    every = [item for parts in wanted.values() for item in parts]
    items.run(folder, every, items.each(analyse), recipe, jobs=stage.jobs(study.params.jobs))
    write_tables(study)


def wave(name: str) -> int:
    """How many analyses must be there before this one, one after the other."""
    return max((1 + wave(other) for other in ANALYSES[name].after), default=0)


def _inputs(study: Study, analysis: Analysis) -> dict[str, Any]:
    chosen = {name: getattr(study.params, name).model_dump(mode="json") for name in analysis.params}
    code = hashing.code(*_sources(analysis.compute.__module__.rpartition(".")[2]))
    return {"seed": study.seed, "params": chosen, "code": code}


def _sources(module: str) -> list[str]:
    """The file of an analysis, and those of its package that it imports, however far down."""
    folder = hashing.PACKAGE / "analyses"
    found, left = set[str](), {module}
    while left:
        found |= left
        trees = [ast.parse((folder / f"{name}.py").read_text(encoding="utf-8")) for name in left]
        imported = {
            part
            for node in (node for tree in trees for node in ast.walk(tree))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sae_transfer.analyses")
            for part in ((node.module or "").rpartition(".")[2], *(alias.name for alias in node.names))
        }
        left = {name for name in imported if (folder / f"{name}.py").exists()} - found
    return sorted(f"analyses/{name}.py" for name in found)


def analyse(study: Study, name: str, part: str) -> list[Path]:
    """Writes the rows of one part of an analysis."""
    path = study.path(paths.ANALYSES) / name / f"{part}.parquet"
    files.write_table(path, ANALYSES[name].compute(study, part))
    return [path]


def write_tables(study: Study) -> None:
    """Writes results/*.csv, what their columns mean (schema.json), the headline's numbers and the verdict."""
    transfer = _joined(TRANSFER, _parts(study, paths.TRANSFER, "rows"))
    bootstrap = _joined(stability.BOOTSTRAP, _parts(study, paths.RESAMPLES, "areas"))
    rows = {
        "transfer": stability.with_train_sd(in_order(study, transfer), bootstrap),
        "datasets": counting.datasets(study),
        "health": counting.health(study),
        "bootstrap": bootstrap,
        "bootstrap_features": _joined(
            stability.BOOTSTRAP_FEATURES, _parts(study, paths.RESAMPLES, "features", saes=True)
        ),
    }
    for name, analysis in ANALYSES.items():
        if analysis.published:
            rows[name] = _joined(analysis.table, [study.analysis(name, part) for part in analysis.parts(study)])
    written = {name: _written(study, name, table) for name, table in rows.items()}
    written["headline"] = _written(study, "headline", headline.headline(written["transfer"]))
    found = warnings.warnings(written)
    _written(study, "warnings", warnings.frame(found))
    folder = study.path(paths.RESULTS)
    files.write_json(folder / "schema.json", [table.described() for table in TABLES.values()])
    files.write_json(folder / "metrics.json", headline.metrics(written))
    files.write_json(folder / "verdict.json", verdict.verdict(written, found).as_json())


def _written(study: Study, name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The table as a reader finds it in results/: six digits are more than any number here is worth, and do not differ
    between platforms as the last bits do.
    """
    files.write_text(study.path(paths.RESULTS) / f"{name}.csv", rows.to_csv(index=False, float_format="%.6g"))
    return study.table(name)


def _parts(study: Study, place: Path, what: str, *, saes: bool = False) -> list[pd.DataFrame]:
    spaces = study.saes if saes else study.all_spaces if place == paths.TRANSFER else study.spaces
    found = [study.path(place) / space.name / f"{name}.{what}.parquet" for space in spaces for name in study.datasets]
    return [files.read_table(path) for path in found if path.parent.name != "verbal" or path.exists()]


def _joined(table: Table, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The parts one below the other; without a row the columns alone."""
    there = [part for part in parts if len(part)]
    return pd.concat(there, ignore_index=True) if there else table.frame([])


def in_order(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """The transfer table by space, then by what is tested, then by what was trained on."""
    spaces = {space.name: i for i, space in enumerate(study.all_spaces)}
    names = {name: i for i, name in enumerate(study.datasets)}
    templates = {(b, t): i for b in study.datasets for i, t in enumerate(study.templates(b))}
    order = pd.DataFrame(
        {
            "space": table["space"].map(spaces),
            "test": table["test"].map(names),
            "condition": table["condition"],
            "variation": [templates[pair] for pair in zip(table["test"], table["test_variation"], strict=True)],
            "train": table["train"].map(names),
        }
    )
    found: pd.DataFrame = table.loc[order.sort_values(list(order.columns), kind="stable").index]
    return found.reset_index(drop=True)
