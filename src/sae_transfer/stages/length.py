"""length: the AUC of every headline probe with prompts of like length compared alone -> results/length.csv."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer import config, length, paths, store
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.transfer import TestSet, TransferParams, test_set

KEY = ["test", "train", "probe", "family", "n_features", "n_train"]


def length_strata() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    tests = {test: _test_rows(test, params) for test in study.datasets}
    rows = [row for space in inputs.spaces(params) for row in _rows(space, tests)]
    table = pd.DataFrame(rows, columns=length.COLUMNS)
    store.write_text(paths.LENGTH, table.to_csv(index=False, float_format="%.6g"))


def _test_rows(test: str, params: Mapping[str, Any]) -> tuple[pd.Series, TestSet]:
    """The stratum of each of B's test prompts under its own template, by row id, and their resamples."""
    table = inputs.prompt_table(test)
    table = table[(table["split"] == "test") & (table["variation"] == table["variation"].iloc[0])]
    strata = pd.Series(length.length_strata(table["prompt"].str.len()), index=table["id"])
    labels, groups = table["label"].to_numpy(), table["group"].to_numpy().astype(str)
    chosen = config.section(params, TransferParams, "transfer")
    return strata, test_set(labels, groups, test, int(params["seed"]), chosen)


def _rows(space: str, tests: Mapping[str, tuple[pd.Series, TestSet]]) -> Iterator[dict[str, Any]]:
    scores = store.read_table(paths.SCORES / f"{space}.parquet")
    scores = scores[(scores["condition"] == "test") & scores["selected"]]
    own = scores.groupby("test")["test_variation"].transform("first")  # tables begin with the dataset's own template
    scores = scores[scores["test_variation"] == own]
    largest = scores.groupby(["train", "test", "probe", "family"])["n_train"].transform("max")
    for key, part in scores[scores["n_train"] == largest].groupby(KEY, sort=False):
        named = dict(zip(KEY, key, strict=True))
        strata, test = tests[str(named["test"])]
        if not np.array_equal(part["id"].to_numpy(), strata.index.to_numpy()):
            raise store.damaged(paths.SCORES / f"{space}.parquet", ValueError("its rows are not those of the prompts"))
        found = length.stratified(part["score"].to_numpy(), strata.to_numpy(), test)
        plain, within = found.plain, found.within
        yield named | {
            "space": space,
            "auc": plain.value,
            "auc_low": plain.low,
            "auc_high": plain.high,
            "stratified_auc": within.value,
            "low": within.low,
            "high": within.high,
            "strata": found.strata,
            "pairs": found.pairs,
            "reason": "; ".join(
                f"{name}: {why}" for name, why in (("auc", plain.reason), ("stratified_auc", within.reason)) if why
            ),
        }


if __name__ == "__main__":
    run(length_strata)
