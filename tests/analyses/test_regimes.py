import numpy as np
import pandas as pd
import pytest

from planted import QUICK, SHARED, SPURIOUS, balanced, features, groups_of, sae_domain
from sae_transfer.analyses.regimes import TABLE, RegimeParams, Setting, altered, fitted, points, regime_rows
from sae_transfer.core.space import residual_stream, sae_features
from sae_transfer.probing.rows import Rows

STREAM, SAE = residual_stream(2), sae_features("sae", 2)
SMALL = RegimeParams(sizes=(20, 80), imbalance=(0.1,), noise=(0.4,), draws=3)


def rng(seed=0):
    return np.random.default_rng(seed)


def domain(seed, planted, n=200):
    """The same rows as an SAE's features, and as a dense stream in which the planted features are directions."""
    generator = rng(seed)
    labels = balanced(generator, n)
    X = features(generator, labels, 60, 0.2, planted)
    mix = rng(99).normal(size=(60, 12))
    dense = (X @ mix + 2 * generator.normal(size=(n, 12))).astype(np.float32)
    groups = groups_of(n, 2)
    return {STREAM: Rows(dense, labels, groups), SAE: Rows(X, labels, groups)}


def measured(train, tests, params=SMALL):
    by_space = {space: {name: rows[space] for name, rows in tests.items()} for space in train}
    return TABLE.frame(regime_rows("a", train, Setting(by_space, 0, dict.fromkeys(train, QUICK)), params))


A = {SHARED: (0.1, 0.75), SPURIOUS: (0.05, 0.9)}


@pytest.fixture(scope="module")
def table():
    return measured(domain(0, A), {"a": domain(1, A), "b": domain(2, {SHARED: (0.1, 0.75)})})


def test_there_is_one_row_for_every_point_space_probe_and_test_set(table):
    assert set(table[["space", "layer", "sae"]].itertuples(index=False, name=None)) == {
        ("layer_2", 2, ""),
        ("sae", 2, "sae"),
    }
    keys = ["space", "test", "regime", "value", "probe", "ranking"]
    assert not table.duplicated(keys).any()
    assert len(table) == 5 * 2 * (1 + 4)
    found = set(table[["regime", "value", "n_train", "draws"]].itertuples(index=False, name=None))
    full = ("size", 200, 200, 1)
    assert found == {("size", 20, 20, 3), ("size", 80, 80, 3), full, ("imbalance", 0.1, 100, 3), ("noise", 0.4, 200, 3)}
    assert (table["in_domain"] == (table["test"] == "a")).all()


def test_a_spurious_feature_wins_in_domain_and_is_lost_out_of_it(table):
    one = table[(table["probe"] == "sparse_1") & (table["regime"] == "size") & (table["value"] == 200)]
    assert (one[one["in_domain"]]["auc"] > 0.85).all()
    assert (one[~one["in_domain"]]["auc"] < 0.65).all()


def test_more_rows_and_cleaner_labels_help(table):
    home = table[table["in_domain"] & (table["ranking"] != "mean_difference")]
    by_regime = home.groupby(["regime", "value"])["auc"].mean()
    assert by_regime["size", 200] > by_regime["size", 20] + 0.02
    assert by_regime["size", 200] > by_regime["noise", 0.4] + 0.02


def test_intervals_hold_their_means_and_need_two_draws(table):
    several = table[table["draws"] > 1]
    assert (several["auc_low"] <= several["auc"]).all()
    assert (several["auc"] <= several["auc_high"]).all()
    once = table[table["draws"] == 1]
    assert once["auc_low"].isna().all()
    assert once["reason"].str.contains("one draw").all()


def test_differences_are_to_the_residual_probe_on_the_same_draws(table):
    keys = ["test", "regime", "value"]
    residual = table[table["probe"] == "residual"].set_index(keys)["auc"]
    others = table[table["probe"] != "residual"]
    against = residual.loc[list(others[keys].itertuples(index=False, name=None))].to_numpy()
    np.testing.assert_allclose(others["delta_residual"], others["auc"] - against, atol=1e-12)
    assert table[table["probe"] == "residual"]["delta_residual"].isna().all()


def test_what_is_missing_has_a_reason():
    found = measured(domain(0, A, n=20), {"a": domain(1, A)}, RegimeParams(sizes=(4,), imbalance=(), noise=(), draws=2))
    lost = found[(found["regime"] == "size") & (found["value"] == 4)]
    assert len(lost) == 5
    assert lost[["auc", "auc_low", "delta_residual"]].isna().all(axis=None)
    assert (lost["draws"] == 0).all()
    assert lost["reason"].str.contains("2 of 2 draws have too few groups or features").all()


def test_sizes_take_as_many_of_each_label_by_whole_groups():
    train = sae_domain(0, n=100)
    at, labels = altered(train.labels, train.groups, "size", 40, rng())
    assert np.bincount(labels).tolist() == [20, 20]
    assert (np.diff(at) > 0).all()
    assert labels.tolist() == train.labels[at].tolist()
    per_group = pd.Series(train.groups[at]).value_counts()
    assert (per_group == 2).mean() > 0.8
    other, _ = altered(train.labels, train.groups, "size", 40, rng(1))
    assert not np.array_equal(at, other)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_imbalance_changes_the_share_and_not_the_number(share):
    train = sae_domain(0, n=100)
    at, labels = altered(train.labels, train.groups, "imbalance", share, rng())
    assert len(at) == len(set(at)) == 50
    assert labels.sum() == round(share * 50)


def test_noise_flips_a_share_of_each_label_and_leaves_the_rows():
    train = sae_domain(0, n=100)
    before = train.labels.copy()
    at, labels = altered(train.labels, train.groups, "noise", 0.2, rng())
    assert at.tolist() == list(range(100))
    for label in (0, 1):
        assert (labels[before == label] != label).sum() == 10
    assert train.labels.tolist() == before.tolist()


def test_points_go_up_to_all_rows_which_are_drawn_once():
    train = sae_domain(0, n=100)
    params = RegimeParams(sizes=(200, 64, 16), imbalance=(0.1,), noise=())
    found = list(points(train, params))
    assert found == [("size", 16, 5), ("size", 64, 5), ("size", 100, 1), ("imbalance", 0.1, 5)]


def test_both_rules_are_fitted_and_differ_where_they_should():
    train = sae_domain(0, planted=A)
    found = fitted(SAE, train, 0, QUICK)
    assert [(p.kind, p.ranking) for p in found] == [
        ("sparse_1", "auc"),
        ("sparse_n", "auc"),
        ("sparse_1", "mean_difference"),
        ("sparse_n", "mean_difference"),
    ]
    always = train.X.tolil()
    always[:, [3]] = np.where(train.labels == 1, 1.1, 1.0)[:, None]  # fires on every row, separates perfectly
    found = fitted(SAE, Rows(always.tocsr(), train.labels, train.groups), 0, QUICK)
    assert found[0].feature_ids.tolist() == [3]
    assert found[2].feature_ids.tolist() == [SPURIOUS]
    assert [probe.kind for probe in fitted(STREAM, domain(0, A)[STREAM], 0, QUICK)] == ["residual"]


def test_everything_is_the_same_from_run_to_run(table):
    again = measured(domain(0, A), {"a": domain(1, A), "b": domain(2, {SHARED: (0.1, 0.75)})})
    pd.testing.assert_frame_equal(table, again)
