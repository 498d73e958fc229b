"""bootstrap@<space>: how the probes of a space, and the features that they read, vary with A's training rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from sae_transfer import config, paths, probe_files, resampling, splits, stability, store
from sae_transfer.probes import Probe, ProbeParams, Training, ranked
from sae_transfer.resampling import BootstrapParams, Ints, Refit, Varied
from sae_transfer.stability import HeldOut, by_column
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams

SMALL = 1024  # rows or columns

Rows = list[dict[str, Any]]


class Data(NamedTuple):
    """A dataset's rows under its own template, and that template's name."""

    train: Training
    test: HeldOut
    template: str


class Found(NamedTuple):
    """What one A gave: rows of both tables, and at full size the probes and rankings of every bootstrap sample."""

    areas: Rows
    features: Rows
    over_groups: list[Refit]


def bootstrap(space: str) -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    layer = inputs.layer_of(space, params)
    data = {name: _data(space, name) for name in study.datasets}
    largest = max(min(one.train.X.shape) for one in data.values())
    with threadpool_limits(1 if largest <= SMALL else None):  # as in fit
        found = {name: _resampled(space, name, data, params) for name in study.datasets}
    about = {"space": space, "layer": layer, "sae": "" if space.startswith("layer_") else space}
    areas = pd.DataFrame([about | row for one in found.values() for row in one.areas])
    _write_csv(paths.BOOTSTRAP_TABLES / f"{space}.csv", areas[list(stability.COLUMNS)])
    folder = paths.BOOTSTRAP / space
    if space.startswith("layer_"):
        weights = {name: stability.residual_weights(one.over_groups) for name, one in found.items()}
        store.write_arrays(folder / "probes.safetensors", weights, {})
        return
    features = pd.DataFrame([about | row for one in found.values() for row in one.features])
    columns = features.reindex(columns=list(stability.FEATURE_COLUMNS))
    _write_csv(paths.BOOTSTRAP_TABLES / f"{space}_features.csv", columns)
    best = [stability.best_features(name, one.over_groups) for name, one in found.items()]
    store.write_table(folder / "features.parquet", pd.concat(best, ignore_index=True))


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    store.write_text(path, table.to_csv(index=False, float_format="%.6g"))


def _data(space: str, dataset: str) -> Data:
    X, labels, _ = inputs.split_rows(space, dataset, "test")
    template = str(inputs.prompt_table(dataset)["variation"].iloc[0])
    return Data(Training(*inputs.split_rows(space, dataset, "train")), by_column(X, labels), template)


def _resampled(space: str, dataset: str, data: Mapping[str, Data], params: Mapping[str, Any]) -> Found:
    """The samples of one A, at each size that its probes were trained at."""
    counts = config.section(params, BootstrapParams, "bootstrap")
    chosen, seed = config.section(params, ProbeParams, "probe").at(space, dataset), int(params["seed"])
    fitted = [probe for probe in probe_files.read(paths.PROBES / space / dataset) if probe.kind in resampling.PROBES]
    method = resampling.refit_layer if space.startswith("layer_") else resampling.refit_sae
    train, found = data[dataset].train, Found([], [], [])
    for size in dict.fromkeys(probe.n_train for probe in fitted):
        same = [probe for probe in fitted if probe.n_train == size]
        part = train if size == len(train) else train.rows(np.asarray(splits.subset(train.labels, size)))
        ranking = None if space.startswith("layer_") else ranked(part, seed, chosen).feature_ids
        for varied in get_args(Varied):
            drawn = resampling.samples(part, varied, seed, dataset, counts)
            refits = resampling.refitted(method, same, part, drawn, seed, chosen)
            _tell(found, dataset, varied, same, refits, part, ranking, data)
            if size == len(train) and varied == "groups":
                found.over_groups.extend(refits)
    return found


def _tell(
    found: Found,
    dataset: str,
    varied: Varied,
    fitted: list[Probe],
    refits: list[Refit],
    train: Training,
    ranking: Ints | None,
    data: Mapping[str, Data],
) -> None:
    """Adds the rows of both tables for one way to draw training rows."""
    where = {"train": dataset, "varied": varied, "n_train": len(train)}
    n_groups = len(np.unique(train.groups))
    for name, (_, test, template) in data.items():
        there = where | {"test": name, "test_variation": template, "in_domain": name == dataset}
        found.areas.extend(there | row for row in stability.spread(fitted, refits, test, n_groups))
    if ranking is not None:
        listed = stability.selection(fitted, ranking, [one.ranking for one in refits], n_groups)
        found.features.extend(where | row for row in listed)


if __name__ == "__main__":
    run(bootstrap)
