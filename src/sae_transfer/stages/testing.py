"""What the transfer stages of all spaces share: the conditions to test under, and the rows and scores they give."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sae_transfer import config, paths, store
from sae_transfer.probes import Matrix, Probe
from sae_transfer.transfer import (
    COLUMNS,
    Reference,
    TestSet,
    TransferParams,
    cell,
    describe,
    repeated_cell,
    test_set,
)

SCORE_COLUMNS = (
    "train test n_train test_variation condition probe family rank n_features selected id group label score probability"
).split()


@dataclass(frozen=True)
class Condition:
    """Rows of B to test on: the prompts themselves, where they stand in B's prompt table, and their resamples."""

    test: str
    name: str
    prompts: pd.DataFrame
    at: NDArray[np.int64]
    rows: TestSet


def conditions(test: str, table: pd.DataFrame, params: Mapping[str, Any]) -> Iterator[Condition]:
    """B's test split under every template and, where params say so, all of B's rows under its own."""
    chosen = config.section(params, TransferParams, "transfer")
    wanted = [("test", (table["split"] == "test") & (table["variation"] == v)) for v in table["variation"].unique()]
    if chosen.whole:
        wanted.append(("whole", table["variation"] == table["variation"].iloc[0]))
    for name, mask in wanted:
        rows = table[mask]
        labels, groups = rows["label"].to_numpy(), rows["group"].to_numpy().astype(str)
        bootstrap = test_set(labels, groups, test, int(params["seed"]), chosen)
        yield Condition(test, name, rows, np.flatnonzero(mask), bootstrap)


def by_size(probes: list[Probe]) -> dict[int, list[Probe]]:
    return {size: [p for p in probes if p.n_train == size] for size in dict.fromkeys(p.n_train for p in probes)}


def where(train: str, condition: Condition, params: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that say what was trained on and tested on."""
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


def evaluate(
    probes: list[Probe], condition: Condition, matrices: Mapping[str, Matrix], residual: Reference | None
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Table rows of the probes on one condition, and the scores of every test row; a control's repeats share a row.

    `matrices` has the condition's rows by the names that `Probe.reads` gives them.
    """
    rows, scored = [], []
    for _, same in groupby(probes, key=lambda p: (p.kind, p.family, p.rank, p.n_features)):
        group = list(same)
        scores = [probe.score(matrices[probe.reads]) for probe in group]
        if len(group) > 1:
            rows.append(describe(group[0]) | repeated_cell(group, scores, condition.rows, residual))
        else:
            rows.append(describe(group[0]) | cell(group[0], scores[0], condition.rows, residual))
            scored.append((group[0], scores[0]))
    return rows, _score_columns(scored, condition)


def _score_columns(scored: list[tuple[Probe, NDArray[np.float64]]], condition: Condition) -> pd.DataFrame:
    """One row a (probe, test row), probe after probe."""
    about = pd.DataFrame(
        {
            "n_train": [probe.n_train for probe, _ in scored],
            "probe": [probe.kind for probe, _ in scored],
            "family": [probe.family for probe, _ in scored],
            "rank": [probe.rank for probe, _ in scored],
            "n_features": [probe.n_features for probe, _ in scored],
            "selected": [probe.selected for probe, _ in scored],
        }
    )
    prompts = condition.prompts[["id", "group", "label"]].reset_index(drop=True)
    made = about.loc[about.index.repeat(len(prompts))].reset_index(drop=True)
    made = made.join(pd.concat([prompts] * len(scored), ignore_index=True))
    return made.assign(
        test=condition.test,
        test_variation=condition.prompts["variation"].iloc[0],
        condition=condition.name,
        score=np.concatenate([scores for _, scores in scored]),
        probability=np.concatenate([probe.probability(scores) for probe, scores in scored]),
    )


class Collected:
    """The rows and scores of one space as they are made, and the two files that they end in."""

    def __init__(self, space: str, model: str, layer: int | None, sae: str = "") -> None:
        self.space = space
        self.about = {"model": model, "layer": pd.NA if layer is None else layer, "space": space, "sae": sae}
        self.rows: list[dict[str, Any]] = []
        self.scores: list[pd.DataFrame] = []

    def add(
        self,
        train: str,
        probes: list[Probe],
        condition: Condition,
        matrices: Mapping[str, Matrix],
        residual: Reference | None,
        params: Mapping[str, Any],
    ) -> None:
        rows, scores = evaluate(probes, condition, matrices, residual)
        self.rows += [self.about | where(train, condition, params) | row for row in rows]
        self.scores.append(scores.assign(train=train))

    def write(self) -> None:
        table = pd.DataFrame(self.rows, columns=list(COLUMNS)).astype({"layer": "Int64"})
        scores = pd.concat(self.scores, ignore_index=True) if self.scores else pd.DataFrame(columns=SCORE_COLUMNS)
        store.write_table(paths.TRANSFER / f"{self.space}.parquet", table)
        store.write_table(paths.SCORES / f"{self.space}.parquet", scores[SCORE_COLUMNS])
