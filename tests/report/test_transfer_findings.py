"""The sentences at the head of the page say what the transfer table says."""

import numpy as np
import pandas as pd
import pytest

from sae_transfer.report.transfer_findings import findings
from tables import table


@pytest.fixture(scope="module")
def study():
    return table(["alpha", "beta", "gamma"], {"narrow_2": 2}, variations={"beta": ["terse"]})


def told(study, start):
    found = [sentence for sentence in findings(study) if sentence.startswith(start)]
    assert len(found) <= 1
    return "".join(found)


def test_a_kind_of_probe_has_its_means_its_worst_cell_and_its_wins(study):
    rows = study[(study["probe"] == "sparse_1") & study["selected"] & (study["test_variation"] == "default")]
    home, away = rows[rows["in_domain"]], rows[~rows["in_domain"]]
    worst = away.loc[away["auc"].idxmin()]
    wins, losses = (away["delta_residual_low"] > 0).sum(), (away["delta_residual_high"] < 0).sum()
    assert losses > 0
    said = told(study, "1-sparse")
    assert f"(narrow_2): mean AUC {home['auc'].mean():.2f} in domain, {away['auc'].mean():.2f} out of domain" in said
    assert f"worst {worst['auc']:.2f} (narrow_2, {worst['train']} to {worst['test']})." in said
    counts = f"its layer in {wins} and loses in {losses}; after Holm's correction over these cells in "
    assert f"Of 6 out-of-domain cells with an interval, it beats the residual stream probe of {counts}" in said


def test_the_corrected_count_is_the_smaller_one(study):
    unsure = study.assign(delta_residual_p=0.04)  # of six cells: no one is sure after Holm's correction
    assert told(unsure, "1-sparse").endswith("correction over these cells in 0 and 0.")
    sure = study.assign(delta_residual_p=1e-9)
    rows = study[(study["probe"] == "sparse_1") & study["selected"] & (study["test_variation"] == "default")]
    losses = (rows.loc[~rows["in_domain"], "delta_residual_high"] < 0).sum()
    assert told(sure, "1-sparse").endswith(f"and {losses}.")


def test_the_residual_probe_is_not_set_against_itself(study):
    assert "beats" not in told(study, "Residual stream probe")


def test_the_negative_control_counts_the_cells_that_hold_chance(study):
    rows = study[(study["probe"] == "shuffled_labels") & (study["test_variation"] == "default")]
    holds = ((rows["auc_low"] <= 0.5) & (rows["auc_high"] >= 0.5)).sum()
    said = told(study, "Negative control")
    assert f"a mean AUC of {rows['auc'].mean():.3f} (cells: {rows['auc'].min():.2f} to {rows['auc'].max():.2f})" in said
    assert f"in {holds} of {len(rows)} cells" in said


def test_one_dataset_has_no_worst_cell():
    alone = table(["alpha"], {"narrow_2": 2})
    assert told(alone, "1-sparse").endswith(" in domain.")


def test_baselines_have_no_sentence(study):
    assert not [sentence for sentence in findings(study) if "principal components" in sentence.lower()]
    assert len(findings(study)) == 5


def test_rows_that_are_left_out_are_told_by_pair_once(study):
    assert told(study, "In ") == ""
    fewer = study.copy()
    for train, test, n in (("alpha", "beta", 12), ("gamma", "beta", 3), ("gamma", "gamma", 1)):
        fewer.loc[(fewer["train"] == train) & (fewer["test"] == test), "n_overlap"] = n
    said = told(fewer, "In ")
    assert said.startswith("In 3 of 9 pairs of a training and a test set, 16 test rows are left out, for the same")
    assert said.endswith("most of them, 12, in alpha to beta.")
    one = study.assign(n_overlap=np.where((study["train"] == "beta") & (study["test"] == "alpha"), 1, 0))
    assert "In 1 of 9 pairs of a training and a test set, 1 test row is left out" in told(one, "In ")


def test_rows_that_all_of_b_shares_with_a_are_another_matter(study):
    """The cells on all rows of B are in the CSV alone, not on the page."""
    whole = study.assign(condition="whole", n_overlap=30)
    assert told(pd.concat([whole[~whole["in_domain"]], study], ignore_index=True), "In ") == ""
