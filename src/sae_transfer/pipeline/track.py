"""track: results -> MLflow. It always runs and adds nothing twice."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sae_transfer.core import files, paths
from sae_transfer.core.arrays import Ints
from sae_transfer.core.params_section import PARAMS_FILE, read_yaml
from sae_transfer.core.space import Space
from sae_transfer.model import neuronpedia
from sae_transfer.pipeline import inputs
from sae_transfer.pipeline.study import Study
from sae_transfer.probing.probe import Probe
from sae_transfer.tracking import contents, location, models, projection, tables, view
from sae_transfer.tracking.origin import git_tags, read_lock

PICTURES = 6  # heatmaps on the page of charts
MOST_CELLS = 5000  # of a table: its page takes seconds more for each further 5,000; results/ has all


def run(study: Study) -> None:
    """Brings MLflow to what results say."""
    experiment = os.environ.get("DVC_EXP_NAME", "")
    name, table, chosen = experiment or models.WORKSPACE, study.table("transfer"), study.params.tracking
    origin = git_tags() | read_lock().maker(paths.TRANSFER) | ({"dvc_experiment": experiment} if experiment else {})
    hashes = inputs.read(study)
    pages = dict(chain(_pages(study), _pictures(study)))
    about = _params(study), _numbers(study), study.verdict().lines, _tables(study, table)
    told = contents.study(name, *about, pages, origin)
    identities = {space.name: _identity(space, study, hashes) for space in study.all_spaces}
    cells = list(contents.cell_runs(table, identities, hashes["datasets"], _features(study, table), origin))
    probes = models.probes_run(name, table, hashes["datasets"], origin)
    done = projection.project(chosen, name, told, cells, probes)
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


def _numbers(study: Study) -> Mapping[str, float]:
    path = study.path(paths.RESULTS) / "metrics.json"
    numbers = files.read_json(path)
    if not isinstance(numbers, Mapping):
        raise files.damaged(path, ValueError("no names and numbers"))
    return {name: value for name, value in numbers.items() if isinstance(value, int | float)}


def _tables(study: Study, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The transfer table in short, and the other tables that a browser opens at once."""
    from sae_transfer.analyses.analysis_registry import TABLES

    found = {"transfer": contents.transfer_table(table)}
    found |= {name: study.table(name) for name in TABLES if name not in found}
    return {name: each for name, each in found.items() if 0 < each.size <= MOST_CELLS}


def _pages(study: Study) -> Iterator[tuple[str, bytes]]:
    """The report, and its figures."""
    if (page := study.path(paths.REPORT) / "index.html").exists():
        yield "report.html", page.read_bytes()
    for figure in sorted(study.path(paths.FIGURES).glob("*.png")):
        yield f"figures/{figure.name}", figure.read_bytes()


def _pictures(study: Study) -> Iterator[tuple[str, bytes]]:
    """The heatmaps of the page of charts: each SAE's 1-sparse probe, its layer's residual stream probe beside it."""
    pairs = [((sae.name, "sparse_1"), (f"layer_{sae.layer}", "residual")) for sae in study.saes]
    named = dict.fromkeys(chain(*pairs, [(layer.name, "residual") for layer in study.layers]))
    drawn = [(f"{space} {key}", study.path(paths.FIGURES) / f"heatmap_{space}_{key}.png") for space, key in named]
    for name, path in [each for each in drawn if each[1].exists()][:PICTURES]:
        yield from view.picture(name, path.read_bytes()).items()


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

    def prompts(sae: str, features: Sequence[int]) -> dict[int, list[str]]:
        """Of every dataset under its own template."""
        at = {name: study.at(name, None) for name in study.datasets}
        X = sparse.vstack([study.matrix(study.space(sae), name)[rows] for name, rows in at.items()], format="csr")
        texts = [text for name, rows in at.items() for text in _texts(study, name, rows)]
        return tables.most_active(X, texts, features)

    return tables.feature_tables(
        table, probes, fires, prompts, lambda sae, feature: neuronpedia.link(page(sae), feature)
    )


def _texts(study: Study, dataset: str, rows: np.ndarray) -> list[str]:
    table = study.prompts(dataset).iloc[rows]
    columns = (table[name] for name in ("label", "question", "prompt"))
    return [tables.as_text(dataset, *row) for row in zip(*columns, strict=True)]
