"""track: results -> MLflow. It always runs and adds nothing twice."""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer.core import files, paths
from sae_transfer.core.arrays import Ints
from sae_transfer.core.params_section import PARAMS_FILE, read_yaml
from sae_transfer.core.space import Space
from sae_transfer.model import neuronpedia
from sae_transfer.pipeline import inputs
from sae_transfer.pipeline.study import Study
from sae_transfer.probing.probe import Probe
from sae_transfer.tracking import contents, location, projection, tables
from sae_transfer.tracking.origin import git_tags, read_lock


def run(study: Study) -> None:
    """Brings MLflow to what results say."""
    experiment = os.environ.get("DVC_EXP_NAME", "")
    name, table, chosen = experiment or "workspace", study.table("transfer"), study.params.tracking
    origin = git_tags() | read_lock().maker(paths.TRANSFER) | ({"dvc_experiment": experiment} if experiment else {})
    hashes = inputs.read(study)
    told = contents.study(name, _params(study), _numbers(study), _tables(study, table), dict(_pages(study)), origin)
    identities = {space.name: _identity(space, study, hashes) for space in study.all_spaces}
    cells = list(contents.cell_runs(table, identities, hashes["datasets"], _features(study, table), origin))
    done = projection.project(chosen, name, told, cells)
    where = location.shown(chosen)
    print(f"{where}: {done.created} runs written, {done.kept} there already, {done.superseded} superseded now")


def _identity(space: Space, study: Study, hashes: Mapping[str, Any]) -> dict[str, str]:
    """What identifies the model and the SAE behind a space, beyond what the transfer table says."""
    model = study.params.model
    told = {
        "seed": str(study.seed),
        "model_revision": model.revision or "",
        "model_hash": hashes["model"],
        "dtype": model.dtype,
        "position": model.position,
        "chat_template": str(model.chat_template).lower(),
    }
    if space.sae:
        sae = study.params.saes[space.sae]
        told |= {
            "sae_release": sae.release or "",
            "sae_id": sae.id or str(sae.path),
            "sae_hash": hashes["saes"][space.sae],
        }
    return {name: value for name, value in told.items() if value}


# What is read of the study.


def _params(study: Study) -> dict[str, Any]:
    return read_yaml(study.path(PARAMS_FILE))


def _numbers(study: Study) -> Mapping[str, Any]:
    path = study.path(paths.RESULTS) / "metrics.json"
    numbers = files.read_json(path)
    if not isinstance(numbers, Mapping):
        raise files.damaged(path, ValueError("no names and numbers"))
    return numbers


def _tables(study: Study, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The transfer table in short, and the analyses' tables."""
    from sae_transfer.analyses.analysis_registry import TABLES

    found = {"transfer": contents.transfer_table(table)}
    return found | {name: study.table(name) for name in TABLES if name not in found}


def _pages(study: Study) -> Iterator[tuple[str, bytes]]:
    """The report, and its figures."""
    if (page := study.path(paths.REPORT) / "index.html").exists():
        yield "report.html", page.read_bytes()
    for figure in sorted(study.path(paths.FIGURES).glob("*.png")):
        yield f"figures/{figure.name}", figure.read_bytes()


def _features(study: Study, table: pd.DataFrame) -> dict[tuple[str, str], dict[str, pd.DataFrame]]:
    def probes(space: str, train: str) -> list[Probe]:
        return study.probes(study.space(space), train)

    @cache
    def fires(sae: str, train: str) -> Ints:
        rows = study.rows(study.space(sae), train).X
        return np.bincount(rows.indices, minlength=rows.shape[1])

    @cache
    def page(sae: str) -> str:
        return neuronpedia.id_of(study.params.saes[sae])

    return tables.feature_tables(table, probes, fires, lambda sae, feature: neuronpedia.link(page(sae), feature))
