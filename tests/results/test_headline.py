"""results/headline.csv and metrics.json are what pandas says of the transfer table, with intervals that add up."""

import numpy as np
import pandas as pd
import pytest

from sae_transfer.core import files, paths
from sae_transfer.results.headline import difference, headline, mean_of, metrics, of_all, over_domains
from sae_transfer.stats.intervals import Estimate
from tables import table


@pytest.fixture(scope="module")
def study():
    return table(
        ["alpha", "beta", "gamma"], {"narrow_2": 2, "wide_2": 2, "narrow_3": 3}, variations={"beta": ["terse"]}
    )


def cells_of(study, space="narrow_2", probe="sparse_1"):
    rows = study[(study["space"] == space) & (study["probe"] == probe) & study["selected"]]
    return rows[rows["test_variation"] == "default"]


def test_a_row_is_what_pandas_says(study):
    rows = cells_of(study)
    away = rows[~rows["in_domain"]]
    found, worst = of_all(headline(study), "sparse_1", "narrow_2"), away.loc[away["auc"].idxmin()]
    assert found["auc_in_domain"] == pytest.approx(rows.loc[rows["in_domain"], "auc"].mean())
    assert found["auc_ood"] == pytest.approx(away["auc"].mean())
    assert found["auc_lost"] == pytest.approx(found["auc_ood"] - found["auc_in_domain"])
    assert found["delta_residual"] == pytest.approx(away["delta_residual"].mean())
    assert (found["auc_ood_worst"], found["worst_train"], found["worst_test"]) == tuple(worst[["auc", "train", "test"]])
    assert (found["cells_in_domain"], found["cells_ood"], found["cells_compared"]) == (3, 6, 6)
    assert found["lost"] == (away["delta_residual_high"] < 0).sum() > 0
    assert found["won"] == (away["delta_residual_low"] > 0).sum()


def test_over_all_saes_a_layer_counts_once_for_each_of_its_saes(study):
    found = headline(study)
    by_space = {space: of_all(found, "residual", space)["auc_ood"] for space in ("layer_2", "layer_3")}
    assert of_all(found, "residual")["auc_ood"] == pytest.approx((2 * by_space["layer_2"] + by_space["layer_3"]) / 3)
    alone = [of_all(found, "sparse_1", sae)["auc_ood"] for sae in ("narrow_2", "wide_2", "narrow_3")]
    assert of_all(found, "sparse_1")["auc_ood"] == pytest.approx(np.mean(alone))


def test_cells_of_one_test_set_count_as_one_and_test_sets_as_independent():
    rows = pd.DataFrame({"test": ["b", "b", "c"], "auc": [0.7, 0.9, 0.6], "auc_low": [0.6, 0.8, 0.5]})
    found = mean_of(rows.assign(auc_high=rows["auc"] + 0.05), "auc")
    assert found.value == pytest.approx(0.7)
    assert found.low == pytest.approx(0.7 - np.hypot(0.1, 0.1) / 2)
    assert found.high == pytest.approx(0.7 + np.hypot(0.05, 0.05) / 2)
    assert mean_of(rows.assign(auc_low=[0.6, np.nan, 0.5], auc_high=1.0), "auc").reason == "a cell has no interval"
    assert mean_of(rows.head(0).assign(auc_high=1.0), "auc").reason == "no such cell"


def test_a_difference_adds_distances_crosswise():
    found = difference(Estimate(0.6, 0.5, 0.65), Estimate(0.9, 0.8, 0.94))
    assert (found.value, found.low) == (pytest.approx(-0.3), pytest.approx(-0.3 - np.hypot(0.1, 0.04)))
    assert found.high == pytest.approx(-0.3 + np.hypot(0.05, 0.1))
    assert np.isnan(difference(Estimate(0.6, reason="few"), Estimate(0.9, 0.8, 0.94)).low)


def test_the_interval_covers_the_mean_of_cells_that_share_their_rows():
    """3 test sets of 4 cells each, whose errors correlate by 0.7 within a test set."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        common, own = rng.normal(0, 0.03, (3, 1)), rng.normal(0, 0.03, (3, 4))
        values = 0.8 + np.sqrt(0.7) * common + np.sqrt(0.3) * own
        rows = pd.DataFrame({"test": np.repeat(["a", "b", "c"], 4), "auc": values.ravel()})
        found = mean_of(rows.assign(auc_low=rows["auc"] - 1.96 * 0.03, auc_high=rows["auc"] + 1.96 * 0.03), "auc")
        held += found.low <= 0.8 <= found.high
    assert held / 400 >= 0.95


def test_over_datasets_the_test_set_is_the_unit():
    rows = pd.DataFrame({"test": ["a", "a", "b", "c"], "auc": [0.5, 0.7, 0.8, 1.0]})
    low, high = over_domains(rows, "auc")  # means 0.6, 0.8, 1.0: sd 0.2, t 4.303
    assert (low, high) == (pytest.approx(0.8 - 4.30265 * 0.2 / np.sqrt(3), abs=1e-5), 1.0)
    assert np.isnan(over_domains(rows[rows["test"] != "a"], "auc")).all()


def test_a_win_that_holm_does_not_hold_up_is_in_the_plain_count_alone(study):
    found = of_all(headline(study.assign(delta_residual_p=0.04)), "sparse_1", "narrow_2")
    assert found["lost"] > found["lost_corrected"] == 0


def test_a_control_has_its_range_and_the_cells_that_hold_chance(study):
    found = of_all(headline(study), "shuffled_labels_residual", "layer_2")
    rows = cells_of(study, "layer_2", "shuffled_labels")
    assert (found["auc_lowest"], found["auc_highest"]) == (rows["auc"].min(), rows["auc"].max())
    holds = ((rows["auc_low"] <= 0.5) & (rows["auc_high"] >= 0.5)).sum()
    assert (found["cells_at_chance"], found["cells_with_interval"]) == (holds, 9)


def test_smaller_probes_and_cells_on_all_rows_of_b_do_not_count(study):
    smaller = study[study["n_train"] > 60].assign(n_train=60, auc=0.1)
    whole = study.assign(condition="whole", auc=0.1)
    pd.testing.assert_frame_equal(headline(pd.concat([study, smaller, whole], ignore_index=True)), headline(study))


def test_one_dataset_has_no_number_out_of_domain():
    alone = headline(table(["alpha"], {"narrow_2": 2}))
    found = of_all(alone, "sparse_1")
    assert np.isnan(found["auc_ood"])
    assert (found["cells_ood"], found["cells_compared"]) == (0, 0)
    assert not [name for name in metrics({"headline": alone}) if name.startswith("out_of_domain.sparse")]


def test_metrics_are_about_a_dozen_flat_numbers_of_the_tables(project):
    found = files.read_json(project.folder / paths.RESULTS / "metrics.json")
    row, gaps = of_all(project.study.table("headline"), "sparse_1"), project.study.table("oracle_gap")
    assert 10 <= len(found) <= 15
    assert all(isinstance(value, float) for value in found.values())
    assert found["out_of_domain.sparse_1"] == pytest.approx(row["auc_ood"])
    assert found["out_of_domain.sparse_1_low"] == pytest.approx(row["auc_ood_low"])
    assert row["auc_ood_low"] < row["auc_ood"]
    gaps = gaps[(gaps["oracle"] == "trained_on_target") & (gaps["probe"] == "sparse_1")]
    assert found["oracle_gap.sparse_1"] == pytest.approx(gaps["gap"].mean(), abs=1e-6)
    words = project.study.table("transfer")
    words = words[(words["family"] == "tfidf") & ~words["in_domain"] & (words["test_variation"] == "default")]
    assert found["out_of_domain.words"] == pytest.approx(words[words["n_train"] == 60]["auc"].mean(), abs=1e-6)


def test_the_table_on_disk_is_that_of_the_transfer_table(project):
    found, made = project.study.table("headline"), headline(project.study.table("transfer"))
    pd.testing.assert_frame_equal(found, made, rtol=1e-4, check_dtype=False)
