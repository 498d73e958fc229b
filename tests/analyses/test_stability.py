from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from planted import QUICK, SHARED, SPURIOUS, layer_domain, sae_domain
from sae_transfer.analyses import stability
from sae_transfer.probing import cross_validation, residual_probes, sae_probes
from sae_transfer.probing.resampling import BootstrapParams, Refit, refit, refitted, samples
from sae_transfer.stats import roc

TWENTY = BootstrapParams()
A = {SHARED: (0.1, 0.75), SPURIOUS: (0.05, 0.9)}
B = {SHARED: (0.1, 0.75)}


def resampled(train, method, resampling="bootstrap", params=TWENTY):
    """The probes of all rows, what they became on each sample, and the number of groups."""
    fitted = [replace(probe, n_train=len(train)) for probe in method(train, 0, QUICK)]
    return fitted, refitted(fitted, train, samples(train, resampling, 0, "a", params), 0, QUICK), train.n_groups


def spread(fitted, refits, test, n_groups):
    return list(stability.spread(fitted, refits, test, n_groups))


def held_out(seed, planted, d=100):
    domain = sae_domain(seed, n=200, d=d, planted=planted)
    return stability.by_column(domain)


def row(rows, **where):
    found = [each for each in rows if all(each[key] == value for key, value in where.items())]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def spurious():
    return resampled(sae_domain(0, planted=A), sae_probes.sparse_probes)


def listed(fitted, refits, n_groups, train):
    ranking = sae_probes.ranked(train, 0, QUICK).feature_ids
    return pd.DataFrame(stability.selection(fitted, ranking, [one.ranking for one in refits], n_groups))


def test_a_strong_feature_is_always_selected_and_noise_hardly_ever(spurious):
    found = listed(*spurious, sae_domain(0, planted=A)).set_index("feature")
    assert found.loc[SPURIOUS, "selected_first"] > 0.9
    assert (found.loc[[SPURIOUS, SHARED], "selected_top_k"] == 1).all()
    assert (found.loc[[SPURIOUS, SHARED], "rank_high"] <= 2).all()
    noise = found.drop([SPURIOUS, SHARED])
    assert (noise["selected_first"] == 0).all()
    assert noise["selected_top_k"].mean() < 0.1
    assert (noise["rank_high"] > noise["rank_low"]).all()
    assert found["selected_first"].sum() == pytest.approx(1)
    assert found["selected_top_k"].sum() == pytest.approx(3)
    assert found.index[0] == SPURIOUS


def test_a_spurious_feature_holds_in_domain_and_fails_out_of_it(spurious):
    fitted, refits, n_groups = spurious
    home = row(spread(fitted, refits, held_out(1, A), n_groups), probe="sparse_1", rank=1)
    away = row(spread(fitted, refits, held_out(2, B), n_groups), probe="sparse_1", rank=1)
    assert home["auc_low"] > 0.85
    assert away["auc_high"] < 0.65 or away["auc_high"] - away["auc_low"] > 0.2
    assert home["auc_low"] <= home["auc_mean"] <= home["auc_high"]
    assert home["resamples"] == 20
    assert home["reason"] == ""


def test_a_choice_between_two_features_of_which_one_transfers_varies_out_of_domain():
    even = {SHARED: (0.1, 0.8), SPURIOUS: (0.1, 0.8)}
    fitted, refits, n_groups = resampled(sae_domain(5, planted=even), sae_probes.sparse_probes)
    home = row(spread(fitted, refits, held_out(1, even), n_groups), probe="sparse_1", rank=1)
    away = row(spread(fitted, refits, held_out(2, B), n_groups), probe="sparse_1", rank=1)
    assert home["auc_sd"] < 0.05
    assert away["auc_sd"] > 0.1
    assert away["auc_low"] < 0.6
    assert away["auc_high"] > 0.75


def test_a_feature_that_is_silent_on_b_scores_chance_on_every_sample():
    shifted = {SHARED: (0.0, 0.0)}
    fitted, refits, n_groups = resampled(sae_domain(0, planted={SHARED: (0.05, 0.9)}), sae_probes.sparse_probes)
    rows = spread(fitted, refits, held_out(3, shifted), n_groups)
    found = row(rows, probe="sparse_1", rank=1)
    assert (found["auc"], found["auc_mean"], found["auc_sd"]) == (0.5, 0.5, 0.0)


def test_noise_has_a_cv_auc_of_a_half_and_no_stable_feature():
    train = sae_domain(7, n=400, d=200)
    fitted, refits, n_groups = resampled(train, sae_probes.sparse_probes)
    judged = cross_validation.cross_validate(
        lambda rows, seed: sae_probes.sparse_probes(rows, seed, QUICK), train, 0, QUICK
    )
    for probe in judged:
        assert abs(probe.cv_auc - 0.5) < 0.1, probe.kind
    rows = spread(fitted, refits, held_out(8, {}, 200), n_groups)
    assert all(each["auc_low"] - 0.02 < 0.5 < each["auc_high"] + 0.02 for each in rows)
    assert listed(fitted, refits, n_groups, train)["selected_first"].max() < 0.7


@pytest.mark.parametrize("resampling", ["bootstrap", "half_sample"])
def test_the_spread_over_samples_is_that_of_fresh_data(resampling):
    """The oracle: probes trained on fresh samples of the same size, tested on the same rows."""
    direction = np.r_[0.8, np.zeros(9)]

    def domain(seed):
        return layer_domain(seed, n=160, d=10, direction=direction)

    test = domain(999)
    fresh = [refit(residual_probes.mean_difference(domain(s), 0, QUICK), domain(s), 0, QUICK) for s in range(60)]
    expected = np.std([stability._area(one.probes[0], test) for one in fresh], ddof=1)
    found = []
    for seed in range(8):
        params = BootstrapParams(resamples=30, seeds=30)
        parts = resampled(domain(100 + seed), residual_probes.mean_difference, resampling, params)
        found.append(spread(*parts[:2], test, parts[2])[0]["auc_sd"])
    assert np.median(found) == pytest.approx(expected, rel=0.4)


def test_the_numbers_of_a_row_by_hand():
    train = layer_domain(0, n=60)
    fitted, refits, n_groups = resampled(train, residual_probes.residual, params=BootstrapParams(resamples=5))
    found = spread(fitted, refits, train, n_groups)[0]
    areas = [roc.auc(train.X @ one.probes[0].weights, train.labels) for one in refits]
    assert found["auc_mean"] == pytest.approx(np.mean(areas))
    assert found["auc_sd"] == pytest.approx(np.std(areas, ddof=1))
    assert [found["auc_low"], found["auc_high"]] == pytest.approx(list(np.quantile(areas, [0.025, 0.975])))


def test_too_few_groups_give_no_number_but_a_reason():
    train = layer_domain(0, n=40)
    train = replace(train, groups=np.array([f"g{i % 9}" for i in range(40)]))
    fitted, refits, n_groups = resampled(train, residual_probes.residual)
    found = spread(fitted, refits, train, n_groups)[0]
    assert found["auc"] > 0.5
    assert not {"auc_mean", "auc_sd", "auc_low", "auc_high"} & set(found)
    assert found["resamples"] == 0
    assert found["reason"] == "9 training groups, fewer than 10"
    rows = stability.selection([], np.array([4, 2]), [], n_groups)
    assert stability.kept(refits).best == ()
    assert stability.kept(refits).residual.size == 0
    assert "selected_first" not in rows
    assert rows["reason"].str.contains("fewer than 10").all()


def test_samples_without_probes_are_counted_out_and_told():
    train = layer_domain(0, n=60)
    fitted = [replace(residual_probes.residual(train, 0, QUICK)[0], n_train=60)]
    all_rows, one_class = np.arange(60), np.flatnonzero(train.labels == 1)
    test = train
    refits = refitted(fitted, train, [all_rows, one_class, all_rows], 0, QUICK)
    found = spread(fitted, refits, test, 30)[0]
    assert (found["resamples"], found["auc_sd"]) == (2, 0.0)
    assert found["reason"].startswith("1 of 3 training samples")
    found = spread(fitted, refits[:2], test, 30)[0]
    assert "auc_mean" not in found
    assert found["reason"].startswith("1 of 2 training samples")


def test_a_test_set_of_one_class_has_no_auc():
    train = layer_domain(0, n=60)
    fitted, refits, n_groups = resampled(train, residual_probes.residual, params=BootstrapParams(resamples=2))
    found = spread(fitted, refits, replace(train, labels=np.ones(60, dtype=int)), n_groups)[0]
    assert np.isnan(found["auc"])
    assert "auc_mean" not in found
    assert found["reason"] == "one class"


def test_constant_activations_score_chance_on_every_sample():
    train = replace(layer_domain(0, n=60), X=np.full((60, 4), 1.5))
    fitted, refits, n_groups = resampled(train, residual_probes.residual, params=BootstrapParams(resamples=3))
    found = spread(fitted, refits, train, n_groups)[0]
    assert [found[name] for name in ("auc", "auc_mean", "auc_sd", "resamples")] == [0.5, 0.5, 0.0, 3]


def test_ranks_and_shares_by_hand():
    rankings = [np.array([3, 1, 2]), np.array([3, 2, 1, 0]), np.array([1]), np.empty(0, dtype=int)]
    train = sae_domain(0)
    one = sae_probes.sparse_n(train, np.array([3]), 1.0, selected=True)
    fitted = [*sae_probes.sparse_1(train, np.array([3, 1])), one]
    found = pd.DataFrame(stability.selection(fitted, np.array([1, 3]), rankings, 20)).set_index("feature")
    assert found["resamples"].tolist() == [3, 3, 3]
    assert found.index.tolist() == [3, 1, 2]  # mean places 4/3, 2 and 7/3; 0 is among no sample's best two
    assert found["rank"].tolist() == [2, 1, 3]
    assert found["rank_median"].tolist() == [1, 2, 2]
    np.testing.assert_allclose(found["selected_first"], [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(found["selected_n"], found["selected_first"])  # N is 1
    np.testing.assert_allclose(found["selected_top_k"], [1, 2 / 3, 2 / 3])
    assert found["reason"].str.startswith("1 of 4 training samples").all()


def test_the_best_features_of_every_sample_are_kept():
    rankings = [np.arange(150)[::-1], np.empty(0, dtype=int), np.array([3, 5])]
    found = stability.kept([Refit([], ranking) for ranking in rankings]).best
    assert [list(ids) for ids in found] == [list(range(149, 49, -1)), [], [3, 5]]


def test_residual_weights_are_those_of_each_sample():
    train = layer_domain(0, n=60)
    fitted, refits, _ = resampled(train, residual_probes.residual, params=BootstrapParams(resamples=3))
    weights = stability.kept([*refits, Refit([None], np.empty(0, dtype=int))]).residual
    assert weights.shape == (3, 20)
    np.testing.assert_array_equal(weights[1], refits[1].probes[0].weights)
    assert not np.array_equal(weights[0], weights[1])
    assert fitted[0].weights.shape == weights[0].shape


KEYS = ["space", "train", "test", "test_variation", "probe", "rank", "n_features", "n_train"]


def transfer_rows():
    """Three probes under B's own template, one of them also under another; a control; and one on all of B's rows."""
    rows = [("residual", "default"), ("mean_difference", "default"), ("sparse_1", "default"), ("residual", "terse")]
    table = pd.DataFrame(rows, columns=["probe", "test_variation"])
    table = table.assign(space="layer_2", train="a", test="b", rank=0, n_features=0, n_train=240, condition="test")
    table = table.assign(auc=0.8, auc_train_sd=np.nan, reason="C: no penalty; auc_train_sd: trained once")
    control = table.iloc[[0]].assign(probe="shuffled_labels", auc_train_sd=0.03, reason="accuracy: repeated")
    return pd.concat([table, control, table.iloc[[0]].assign(condition="whole")], ignore_index=True)


def test_the_transfer_table_takes_its_training_spread_from_the_bootstrap():
    table = transfer_rows()
    bootstrap = table.loc[[0, 1, 2], KEYS].assign(resampling="bootstrap", auc_sd=[0.01, 0.02, np.nan], reason="")
    bootstrap.loc[2, "reason"] = "9 training groups, fewer than 10"
    found = stability.with_train_sd(table, pd.concat([bootstrap, bootstrap.assign(resampling="half_sample", auc_sd=9)]))
    np.testing.assert_array_equal(found["auc_train_sd"], [0.01, 0.02, np.nan, np.nan, 0.03, np.nan])
    once, few = (f"C: no penalty; auc_train_sd: {why}" for why in ("trained once", "9 training groups, fewer than 10"))
    assert found["reason"].tolist() == ["C: no penalty", "C: no penalty", few, once, "accuracy: repeated", once]
    others = ["auc_train_sd", "reason"]
    pd.testing.assert_frame_equal(found.drop(columns=others), table.drop(columns=others))


def test_without_a_bootstrap_the_transfer_table_stays():
    table = transfer_rows()
    pd.testing.assert_frame_equal(stability.with_train_sd(table, stability.BOOTSTRAP.frame([])), table)


def test_everything_is_the_same_from_run_to_run():
    train = sae_domain(0, planted=A)
    one, other = (resampled(train, sae_probes.sparse_probes, params=BootstrapParams(resamples=2)) for _ in range(2))
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(a.ranking, b.ranking)
        assert all(np.array_equal(p.weights, q.weights) for p, q in zip(a.probes, b.probes, strict=True))
