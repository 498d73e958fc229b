"""Saved probes as MLflow's models, with their AUC on every test set: the page Models shows train x test.

Pure functions of the study's tables.
"""

from collections.abc import Mapping

import pandas as pd

from sae_transfer.probing import kinds
from sae_transfer.results import cells
from sae_transfer.tracking.contents import Content, Model, as_json

WORKSPACE = "workspace"  # the study's name outside of a DVC experiment


def probes_run(study: str, table: pd.DataFrame, hashes: Mapping[str, str], origin: Mapping[str, str]) -> Content:
    """The run that a study's models come from.

    Args:
        study: the study's name. The page Models can group by source run, and this is in its name.
        table: the transfer table.
        hashes: of the datasets' files, by name.
        origin: tags that say where the numbers were made.
    """
    found = _models(table)
    shown = pd.DataFrame([{"model": model.name, **model.auc} for model in found])
    digests = {name: hashes.get(name, "unknown")[:8] for name in cells.datasets(table)}
    tables = {"auc.json": as_json(shown)}
    return Content(
        f"probes \N{MIDDLE DOT} {study}", {}, {}, tables=tables, models=found, datasets=digests, origin=origin
    )


def _models(table: pd.DataFrame) -> list[Model]:
    """The probes that the training data chose, SAEs first, each kind of a space by training set."""
    rows = cells.headline(table[table["probe"].map(kinds.role) == "probe"])
    rows = rows[rows["auc"].notna()]
    rows = rows.assign(stream=rows["sae"] == "", **{name: _in_order(rows[name]) for name in ("space", "key", "train")})
    found = []
    for place, own in rows.groupby(["stream", "space", "key", "train"], observed=True):
        _, space, key, train = map(str, place)
        about = {"train": train, "space": space, "probe": key, "features": own["feature_ids"].iloc[0][:400]}
        areas = dict(zip(own["test"], own["auc"].astype(float), strict=True))
        params = {name: value for name, value in about.items() if value}
        found.append(Model(f"{train} · {space} {key}", key, params, areas))
    return found


def _in_order(names: pd.Series) -> pd.Categorical:
    return pd.Categorical(names, names.unique())
