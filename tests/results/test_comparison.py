"""Two studies set against one another: the difference of each cell, and how sure it is."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import tables
from sae_transfer.core.errors import UserError
from sae_transfer.probing import kinds
from sae_transfer.report.figures import two_studies
from sae_transfer.results import cells
from sae_transfer.results.comparison import CELL, COLUMNS, Compared, compare, summarise_comparison

A = tables.table(["alpha", "beta"], {"narrow": 2})
A = A[A["layer"].notna()]  # without the text baselines
N = 120


def scored(table, power, rows=slice(0, N), seed=0, key="sparse_n"):
    """A study with that table, and for one kind of probe scores that separate the labels with that power."""
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % 2
    noise = rng.normal(size=N)
    ids = {"id": [f"r{i}" for i in range(N)], "group": [f"g{i // 2}" for i in range(N)], "label": labels}
    frame = pd.DataFrame(ids | {"score": noise + power * labels})[rows]
    where = {"train": "alpha", "test": "beta", "test_variation": "default", "condition": "test"}
    kind, family = kinds.KEYS[key]
    frame = frame.assign(**where, probe=kind, family=family, n_train=240, selected=True)
    return Compared("one", table, lambda space: frame if space == "narrow" else None)


def cell(table, key="sparse_n"):
    chosen = table[(table["space"] == "narrow") & (table["train"] == "alpha") & (table["test"] == "beta")]
    return chosen[chosen["key"] == key].iloc[0]


@pytest.mark.parametrize("key", ["sparse_n", "target_trained_sparse_1"])  # a kind with one family, and with several
def test_shared_rows_give_a_paired_interval_around_the_difference_of_the_two_aucs(key):
    weak, strong = scored(A, 0.8, key=key), scored(A, 2.5, key=key)
    found = cell(compare(weak, strong, seed=0), key)
    frames = [study.scores("narrow") for study in (weak, strong)]
    areas = [roc_auc_score(frame["label"], frame["score"]) for frame in frames]
    assert found["difference"] == pytest.approx(areas[1] - areas[0], abs=1e-12)
    assert 0 < found["difference_low"] < found["difference"] < found["difference_high"]
    assert (found["n_shared"], found["n_groups"], found["reason"]) == (N, N // 2, "")
    turned = cell(compare(strong, weak, seed=0), key)
    assert turned["difference"] == pytest.approx(-found["difference"])
    assert turned["difference_high"] < 0


def test_pairing_tells_apart_what_two_separate_intervals_would_not():
    """The same noise in both: the difference is sure although each AUC alone is not."""
    found = cell(compare(scored(A, 0.8), scored(A, 1.0), seed=0))
    other = cell(compare(scored(A, 0.8), scored(A, 1.0, seed=1), seed=0))
    assert found["difference_low"] > 0
    assert found["difference_high"] - found["difference_low"] < 0.5 * (
        other["difference_high"] - other["difference_low"]
    )


def test_a_study_against_itself_differs_nowhere():
    found = compare(scored(A, 1.0), scored(A, 1.0), seed=0)
    assert (found["difference"] == 0).all()
    assert (found.dropna(subset=["difference_low"])[["difference_low", "difference_high"]] == 0).all(axis=None)


def test_only_the_rows_that_both_tested_are_compared():
    x, y = scored(A, 1.0, slice(0, 80)), scored(A, 1.0, slice(40, 120))
    found = cell(compare(x, y, seed=0))
    assert (found["n_shared"], found["difference"]) == (40, 0)
    apart = cell(compare(scored(A, 1.0, slice(0, 40)), scored(A, 1.0, slice(40, 120)), seed=0))
    assert np.isnan(apart["difference_low"])
    assert apart["reason"] == "no test row is shared"
    assert apart["difference"] == 0  # of the tables' numbers, which are the same here


def test_cells_without_scores_have_the_tables_difference_and_a_reason():
    raised = A.assign(auc=A["auc"] - 0.25)
    found = compare(Compared("x", A, lambda space: None), Compared("y", raised, lambda space: None), seed=0)
    assert list(found.columns) == list(COLUMNS)
    assert found["difference"].to_numpy() == pytest.approx(-0.25)
    assert found["difference_low"].isna().all()
    assert set(found["reason"]) == {"scores of its rows are not kept"}
    assert not found.duplicated(CELL).any()
    assert len(found) == len(cells.headline(A).drop_duplicates(["space", "train", "test", "key"]))


def test_studies_with_nothing_in_common_are_refused_with_what_was_meant():
    other = tables.table(["alpha", "beta"], {"narow": 4})
    with pytest.raises(UserError, match="x and y have no cell in common; space layer_4"):
        compare(Compared("x", A, lambda space: None), Compared("y", other, lambda space: None), seed=0)


def test_what_it_says_and_shows_names_the_spaces_and_the_winners():
    table = compare(scored(A, 0.8), scored(A, 2.5), seed=0)
    line = next(line for line in summarise_comparison(table, "old", "new") if "narrow  sparse_n" in line)
    assert "new higher in 1, lower in 0 of 1 with an interval" in line
    figure = two_studies.two_studies(table, "old", "new")
    assert [axes.get_title("left") for axes in figure.axes] == ["layer_2", "narrow"]
    assert {axes.get_ylabel() for axes in figure.axes} == {"AUC in new"}
    filled = [
        line
        for line in figure.axes[1].lines
        if line.get_markerfacecolor() != "none" and line.get_marker() != "None" and len(line.get_xdata())
    ]
    assert [len(line.get_xdata()) for line in filled] == [1]
