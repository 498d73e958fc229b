"""Views of the transfer table: which rows compare like with like, and numbers as text."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sae_transfer.results import cells
from tables import table

DATASETS = ["alpha", "beta", "gamma"]


@pytest.fixture(scope="module")
def study():
    return table(DATASETS, {"narrow_2": 2}, variations={"beta": ["terse"]})


def test_headline_rows_are_at_full_size_under_the_own_template_on_the_test_split_as_chosen(study):
    study = study[study["space"] != "verbal"]  # which trains on no row
    smaller, whole = study.assign(n_train=60), study.assign(condition="whole")
    found = cells.headline(pd.concat([smaller, study, whole], ignore_index=True))
    assert len(found) == len(cells.headline(study)) > 0
    assert set(found["condition"]) == {"test"}
    assert 60 not in set(found["n_train"])
    assert set(found["test_variation"]) == {"default"}
    assert found["selected"].all()
    assert not found.duplicated(["space", "train", "test", "key"]).any()


@pytest.mark.parametrize(
    ("value", "signed", "shown"),
    [(0.876, False, "0.88"), (-0.034, True, "−0.03"), (0.2, True, "+0.20"), (0.0, True, "0.00"), (np.nan, True, "–")],
)
def test_number(value, signed, shown):
    assert cells.number(value, signed=signed) == shown


def test_interval_of_too_few_groups_is_a_dash_with_its_reason():
    few = table(["alpha", "beta"], {"narrow_2": 2}, n_groups={"beta": 5})
    value = cells.grid(few, "narrow_2", "sparse_1").values[0][1]
    assert (value.interval, value.reason) == ("–", "5 groups, fewer than 10")
    assert not replace(value, signed=True).excludes_zero


def test_a_cell_that_is_not_there_or_has_no_number_says_so(study):
    gone = study.copy()
    gone.loc[gone["test"] == "gamma", ["auc", "auc_low", "auc_high"]] = np.nan
    gone = gone[~((gone["train"] == "beta") & (gone["test"] == "alpha"))]
    grid = cells.grid(gone, "layer_2", "residual")
    assert [value.text for value in grid.values[0]][2] == "–"
    assert (grid.values[1][0].reason, grid.sizes[1][0]) == ("not measured", "–")
    assert [side.name for side in grid.trains] == [side.name for side in grid.tests] == DATASETS


def test_a_grid_knows_how_many_rows_each_cell_is_on(study):
    fewer = study.copy()
    fewer.loc[(fewer["train"] == "alpha") & (fewer["test"] == "beta"), "n_test"] = 28
    grid = cells.grid(fewer, "narrow_2", "sparse_1")
    assert grid.sizes == [["40", "28", "40"], ["40", "40", "40"], ["40", "40", "40"]]
    assert [side.n for side in grid.tests] == ["40", "28–40", "40"]
    assert {side.n for side in grid.trains} == {"240"}


def test_a_layer_without_an_sae_has_a_panel_of_its_own(study):
    assert [title for title, _ in cells.panels(study)] == ["narrow_2 (layer 2)"]
    assert [title for title, _ in cells.panels(study[study["sae"] == ""])] == ["layer 2"]
