"""transfer@<space>: every probe of a space on every dataset's test rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer import config, paths, probe_files, store
from sae_transfer.probes import Matrix, Probe
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.transfer import (
    COLUMNS,
    Floats,
    TestSet,
    TransferParams,
    cell,
    describe,
    reference,
    repeated_cell,
    test_set,
)


@dataclass(frozen=True)
class Condition:
    """Rows of B to test on: the prompts themselves, and those rows in the space and in its layer's residual stream."""

    test: str
    name: str
    prompts: pd.DataFrame
    X: Matrix
    X_residual: Matrix
    rows: TestSet


def transfer(space: str) -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    layer = inputs.layer_of(space, params)
    about = {"model": params["model"]["name"], "layer": layer, "space": space}
    about["sae"] = "" if space.startswith("layer_") else space
    fitted = {train: _by_size(probe_files.read(paths.PROBES / space / train)) for train in study.datasets}
    residual = {
        train: {
            probe.n_train: probe
            for probe in probe_files.read(paths.PROBES / f"layer_{layer}" / train)
            if probe.kind == "residual"
        }
        for train in study.datasets
    }
    cells, scores = [], []
    for condition in _conditions(space, layer, study.datasets, params):
        for train in study.datasets:
            if condition.name == "whole" and condition.test == train:
                continue
            where = about | _where(train, condition, params)
            for n_train, probes in fitted[train].items():
                baseline = residual[train][n_train].score(condition.X_residual)
                rows, columns = _evaluate(probes, condition, baseline)
                cells += [where | row for row in rows]
                scores += [column.assign(train=train) for column in columns]
    store.write_table(paths.TRANSFER / f"{space}.parquet", pd.DataFrame(cells)[list(COLUMNS)])
    store.write_table(paths.SCORES / f"{space}.parquet", pd.concat(scores, ignore_index=True))


def _by_size(probes: list[Probe]) -> dict[int, list[Probe]]:
    return {size: [p for p in probes if p.n_train == size] for size in dict.fromkeys(p.n_train for p in probes)}


def _conditions(space: str, layer: int, datasets: tuple[str, ...], params: Mapping[str, Any]) -> Iterator[Condition]:
    chosen = config.section(params, TransferParams, "transfer")
    for test in datasets:
        table = inputs.prompt_table(test)
        X, X_residual = inputs.space_rows(space, test, table), inputs.residual_rows(layer, test, table)
        default = table["variation"] == table["variation"].iloc[0]
        wanted = [("test", (table["split"] == "test") & (table["variation"] == v)) for v in table["variation"].unique()]
        if chosen.whole:
            wanted.append(("whole", default))
        for name, mask in wanted:
            rows = table[mask]
            labels, groups = rows["label"].to_numpy(), rows["group"].to_numpy().astype(str)
            at = np.flatnonzero(mask)
            bootstrap = test_set(labels, groups, test, int(params["seed"]), chosen)
            yield Condition(test, name, rows, X[at], X_residual[at], bootstrap)


def _where(train: str, condition: Condition, params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "train": train,
        "test": condition.test,
        "in_domain": train == condition.test,
        "train_variation": params["datasets"][train].get("template", "default"),
        "test_variation": condition.prompts["variation"].iloc[0],
        "condition": condition.name,
        "n_test": len(condition.prompts),
        "n_groups": condition.rows.n_groups,
    }


def _evaluate(
    probes: list[Probe], condition: Condition, baseline: Floats
) -> tuple[list[dict[str, Any]], list[pd.DataFrame]]:
    """Table rows of the probes on one condition, and the scores of every test row; a control's repeats share a row."""
    against = reference(baseline, condition.rows)
    rows, columns = [], []
    for _, same in groupby(probes, key=lambda p: (p.kind, p.family, p.rank, len(p.weights))):
        group = list(same)
        scores = [probe.score(condition.X) for probe in group]
        if len(group) > 1:
            rows.append(describe(group[0]) | repeated_cell(group, scores, condition.rows, against))
        else:
            rows.append(describe(group[0]) | cell(group[0], scores[0], condition.rows, against))
            columns.append(_score_column(group[0], scores[0], condition))
    return rows, columns


def _score_column(probe: Probe, scores: Floats, condition: Condition) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "train": "",
            "test": condition.test,
            "n_train": probe.n_train,
            "test_variation": condition.prompts["variation"].to_numpy(),
            "condition": condition.name,
            "probe": probe.kind,
            "rank": probe.rank,
            "n_features": 0 if probe.feature_ids is None else len(probe.feature_ids),
            "selected": probe.selected,
            "id": condition.prompts["id"].to_numpy(),
            "group": condition.prompts["group"].to_numpy(),
            "label": condition.prompts["label"].to_numpy(),
            "score": scores,
            "probability": probe.probability(scores),
        }
    )


if __name__ == "__main__":
    run(transfer)
