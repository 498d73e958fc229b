"""track: results -> MLflow. It always runs and adds nothing twice."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer import config, features, neuronpedia, paths, probe_files, result_files, store
from sae_transfer.features import SaeParams
from sae_transfer.models import ModelParams
from sae_transfer.probes import Ints, Probe
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.tracking import TrackingParams, contents, location, projection, tables
from sae_transfer.tracking.origin import Lock, git_tags, read_lock


def track() -> None:
    params = config.read()
    chosen = config.section(params, TrackingParams, "tracking")
    experiment, lock = os.environ.get("DVC_EXP_NAME", ""), read_lock()
    table = result_files.read_transfer(paths.RESULTS / "transfer.csv")
    numbers = store.read_json(paths.RESULTS / "metrics.json")
    tables.check_numbers(numbers, paths.RESULTS / "metrics.json")
    origin = git_tags() | ({"dvc_experiment": experiment} if experiment else {})
    spaces = [str(space) for space in table["space"].unique()]
    families = list(
        contents.families(
            table,
            {space: _identity(space, params, lock) for space in spaces},
            _datasets(params, lock),
            _features(table, params),
            {space: origin | lock.maker(paths.TRANSFER / f"{space}.parquet") for space in spaces},
        )
    )
    name = experiment or "workspace"
    figures = sorted(paths.FIGURES.glob("*.png"))
    drawn = contents.digest([(path.name, path.read_bytes().hex()) for path in figures])
    study = contents.study(name, params, numbers, _analyses(), drawn, origin)
    with location.opened(chosen) as opened:
        done = projection.project(opened, name, study, families, figures)
    where = location.shown(chosen)
    print(f"{where}: {done.created} runs written, {done.kept} there already, {done.superseded} superseded now")


def _identity(space: str, params: Mapping[str, Any], lock: Lock) -> dict[str, str]:
    """What identifies the model and the SAE behind a space, beyond what the transfer table says."""
    model = config.section(params, ModelParams, "model")
    told = {
        "seed": str(params["seed"]),
        "model_revision": model.revision or "",
        "model_md5": lock.md5(model.identity),
        "dtype": model.dtype,
        "position": model.position,
        "chat_template": str(model.chat_template).lower(),
    }
    study = config.section(params, StudyParams, "study")
    if space in study.saes:
        sae = config.section(params, SaeParams, "saes", space)
        told |= {"sae_release": sae.release or "", "sae_id": sae.id or str(sae.path)}
        told |= {"saes_md5": lock.md5(study.saes_identity)}
    return {name: value for name, value in told.items() if value}


def _datasets(params: Mapping[str, Any], lock: Lock) -> dict[str, tuple[str, str]]:
    """(md5, path) of each dataset's raw file."""
    files = {name: str(params["datasets"][name]["path"]) for name in params["study"]["datasets"]}
    return {name: (lock.md5(path), path) for name, path in files.items()}


def _features(table: pd.DataFrame, params: Mapping[str, Any]) -> dict[tuple[str, str, str], pd.DataFrame]:
    @cache
    def probes(space: str, train: str) -> list[Probe]:
        return probe_files.read(paths.PROBES / space / train)

    @cache
    def fires(sae: str, train: str) -> Ints:
        prompts = inputs.prompt_table(train)
        default = prompts["variation"] == prompts["variation"].iloc[0]
        wanted = np.flatnonzero((prompts["split"] == "train") & default)
        encoded = features.read(paths.FEATURES / train, sae)
        return np.bincount(encoded[wanted].indices, minlength=encoded.shape[1])

    @cache
    def page(sae: str) -> str:
        return neuronpedia.id_of(config.section(params, SaeParams, "saes", sae))

    return tables.feature_tables(table, probes, fires, lambda sae, feature: neuronpedia.link(page(sae), feature))


def _analyses() -> dict[str, pd.DataFrame]:
    return {name: result_files.read(paths.RESULTS / f"{name}.csv") for name in ("transfer", *result_files.ANALYSES)}


if __name__ == "__main__":
    run(track)
