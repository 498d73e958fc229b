"""What results/metrics.json holds is what pandas says of the tables."""

import json

import numpy as np
import pandas as pd
import pytest

from sae_transfer.analyses.analysis_registry import TABLES
from sae_transfer.core import files, paths
from sae_transfer.results.headline_numbers import of_analyses, summary
from tables import table


@pytest.fixture(scope="module")
def study():
    return table(["alpha", "beta", "gamma"], {"narrow_2": 2}, variations={"beta": ["terse"]})


def test_summary_is_what_pandas_says(study):
    numbers = summary(study)
    rows = study[(study["space"] == "narrow_2") & (study["probe"] == "sparse_1") & study["selected"]]
    rows = rows[rows["test_variation"] == "default"]
    away = rows[~rows["in_domain"]]
    found = numbers["narrow_2"]["sparse_1"]
    assert found["auc_in_domain"] == round(rows.loc[rows["in_domain"], "auc"].mean(), 6)
    assert found["auc_ood"] == round(away["auc"].mean(), 6)
    assert found["auc_ood_worst"] == round(away["auc"].min(), 6)
    assert (found["cells_in_domain"], found["cells_ood"], found["cells_compared"]) == (3, 6, 6)
    assert found["share_beats_residual"] == round((away["delta_residual_low"] > 0).mean(), 6)
    assert found["share_loses_to_residual"] == round((away["delta_residual_high"] < 0).mean(), 6) > 0
    assert "share_beats_residual" not in numbers["layer_2"]["residual"]
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


def test_a_win_that_holm_does_not_hold_up_is_in_the_plain_share_alone(study):
    found = summary(study.assign(delta_residual_p=0.04))["narrow_2"]["sparse_1"]
    assert found["share_loses_to_residual"] > found["share_loses_to_residual_corrected"] == 0


def test_a_control_has_its_mean_its_range_and_the_cells_that_hold_chance(study):
    found = summary(study)["layer_2"]["shuffled_labels_residual"]
    rows = study[(study["space"] == "layer_2") & (study["probe"] == "shuffled_labels")]
    rows = rows[rows["test_variation"] == "default"]
    assert found == {
        "auc": round(rows["auc"].mean(), 6),
        "auc_lowest": round(rows["auc"].min(), 6),
        "auc_highest": round(rows["auc"].max(), 6),
        "cells": 9,
        "cells_whose_interval_holds_chance": ((rows["auc_low"] <= 0.5) & (rows["auc_high"] >= 0.5)).sum(),
    }
    assert abs(found["auc"] - 0.5) < 0.05


def test_smaller_probes_and_cells_on_all_rows_of_b_do_not_count(study):
    smaller = study[study["n_train"] > 60].assign(n_train=60, auc=0.1)
    whole = study.assign(condition="whole", auc=0.1)
    assert summary(pd.concat([study, smaller, whole], ignore_index=True)) == summary(study)


def test_one_dataset_has_no_number_out_of_domain():
    found = summary(table(["alpha"], {"narrow_2": 2}))["narrow_2"]["sparse_1"]
    assert found["auc_ood"] is None
    assert found["share_beats_residual"] is None
    assert found["cells_ood"] == 0


def test_headlines_of_analyses_are_means_and_a_missing_one_is_null():
    regret = pd.DataFrame({"sae": "a", "probe": "sparse_1", "policy": ["x", "x", "y"], "auc": [0.5, 0.7, np.nan]})
    assert of_analyses({"policies": regret.assign(regret=0.1), "length": pd.DataFrame()}) == {
        "policies": {"a": {"sparse_1": {"x": {"auc": 0.6, "regret": 0.1}, "y": {"auc": None, "regret": 0.1}}}}
    }


def test_metrics_are_the_summary_and_the_headlines_of_the_tables(project):
    tables = {name: project.study.table(name) for name in TABLES}
    found = files.read_json(project.folder / paths.RESULTS / "metrics.json")
    assert found == summary(tables["transfer"]) | of_analyses(tables)
    gaps = tables["oracle_gap"]
    gaps = gaps[(gaps["oracle"] == "trained_on_target") & (gaps["probe"] == "sparse_n")]
    assert found["oracle_gap"]["narrow_3"]["sparse_n"]["gap"] == pytest.approx(gaps["gap"].mean(), abs=1e-6)


def test_the_spread_over_training_samples_is_that_of_probes_on_all_rows(project):
    """The study trains every probe on 60 rows and on 40."""
    rows = project.study.table("bootstrap")
    assert set(rows["n_train"]) == {40, 60}
    rows = rows[rows["selected"] & ~rows["in_domain"] & (rows["resampling"] == "bootstrap") & (rows["n_train"] == 60)]
    means = rows.groupby(["space", "probe"])["auc_sd"].mean()
    found = files.read_json(project.folder / paths.RESULTS / "metrics.json")["bootstrap"]
    assert {(space, probe): n["auc_sd"] for space, of in found.items() for probe, n in of.items()} == pytest.approx(
        means.to_dict(), abs=1e-6
    )
