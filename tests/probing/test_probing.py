import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as log_loss_of

from planted import QUICK, SHARED, SPURIOUS, balanced, features, groups_of, layer_domain, sae_domain
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import parse
from sae_transfer.core.space import residual_stream, sae_features
from sae_transfer.probing import residual_probes, sae_probes, search
from sae_transfer.probing.cross_validation import PathScores, choose, cross_validate
from sae_transfer.probing.kinds import fit
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams, Tunable
from sae_transfer.probing.rows import Rows
from sae_transfer.stats import intervals, logistic, thresholds
from sae_transfer.stats.logistic import fit_logistic
from sae_transfer.stats.roc import auc

ONE_SHARED = {SHARED: (0.1, 0.8)}
LAYER, SAE = residual_stream(2), sae_features("s", 2)


def only(fitted, kind, family=None):
    return [probe for probe in fitted if probe.kind == kind and family in (None, probe.family)]


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=np.asarray(getattr(a, name)).dtype.kind == "f")
        for a, b in zip(one, other, strict=True)
        for name in vars(a)
    )


# logistic regression


def scikit_learns(X, labels, C):
    model = LogisticRegression(C=C, solver="lbfgs", tol=1e-10, max_iter=100_000).fit(X, labels)
    return np.r_[model.coef_[0], model.intercept_]


def columns_and_labels(n, d, kind):
    rng = np.random.default_rng(n + d)
    X = rng.normal(size=(n, d))
    labels = (X[:, 0] + rng.normal(size=n) > 0).astype(int)
    if kind == "separable":
        labels = (X[:, 0] > 0).astype(int)
    if kind == "imbalanced":
        labels = (np.arange(n) < 4).astype(int)
    return X, labels


@pytest.mark.parametrize("C", [0.001, 0.1, 1.0, 10.0])
@pytest.mark.parametrize(("n", "d"), [(100, 1), (100, 20), (40, 90)])
@pytest.mark.parametrize("kind", ["noisy", "separable", "imbalanced"])
def test_logistic_regression_equals_scikit_learns(n, d, C, kind):
    X, labels = columns_and_labels(n, d, kind)
    np.testing.assert_allclose(fit_logistic(X, labels, C), scikit_learns(X, labels, C), atol=1e-4)


@pytest.mark.parametrize("C", [1e-4, 0.1, 10.0, 1e4])
@pytest.mark.parametrize("kind", ["noisy", "separable", "imbalanced"])
def test_with_more_columns_than_rows_the_gradient_vanishes_too(C, kind):
    """scikit-learn's own error is larger here, so the oracle is the condition that every optimum meets."""
    for n, d in ((40, 90), (60, 61), (60, 500)):
        X, labels = columns_and_labels(n, d, kind)
        weights, bias = logistic.fit_path(X, labels, [C], "none")[0]
        wrong = expit(X @ weights + bias) - labels
        np.testing.assert_allclose(X.T @ wrong + weights / C, 0, atol=1e-5)
        assert abs(wrong.sum()) < 1e-6


def test_copies_of_rows_with_more_columns_than_rows_are_rows():
    X, labels = columns_and_labels(40, 90, "noisy")
    rows = np.repeat(np.arange(40), np.arange(40) % 3)
    (weights, bias), *_ = logistic.fit_path(X[rows], labels[rows], [1.0], "none")
    expected = scikit_learns(X[rows], labels[rows], 1.0)
    np.testing.assert_allclose(np.r_[weights, bias], expected, atol=1e-4)


def test_the_start_of_a_fit_changes_its_result_by_rounding_alone():
    X, labels = columns_and_labels(100, 20, "noisy")
    cold = fit_logistic(X, labels, 1.0)
    for start in (np.full(21, 5.0), fit_logistic(X, labels, 0.001), cold):
        given = start.copy()
        np.testing.assert_allclose(fit_logistic(X, labels, 1.0, start), cold, atol=1e-6)
        np.testing.assert_array_equal(start, given)


@pytest.mark.parametrize(("n", "d"), [(100, 20), (40, 90)])
def test_standardised_fits_fold_the_scaling_into_the_weights(n, d):
    X, labels = columns_and_labels(n, d, "noisy")
    X = X * np.geomspace(1e-4, 1e4, d) + np.arange(d)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    grid = [0.001, 0.1, 10.0]
    for (weights, bias), C in zip(logistic.fit_path(X, labels, grid, "standard"), grid, strict=True):
        expected = scikit_learns(Z, labels, C)
        np.testing.assert_allclose(X @ weights + bias, Z @ expected[:-1] + expected[-1], atol=1e-3)
        np.testing.assert_allclose(weights * X.std(axis=0), expected[:-1], atol=1e-4)


@pytest.mark.parametrize(("n", "d"), [(100, 20), (40, 90)])
def test_rms_scaled_fits_fold_the_scaling_into_the_weights_and_do_not_centre(n, d):
    X, labels = columns_and_labels(n, d, "noisy")
    X = np.abs(X) * np.geomspace(1e-4, 1e4, d)
    rms = np.sqrt(np.mean(X**2, axis=0))
    grid = [0.001, 0.1, 10.0]
    for (weights, bias), C in zip(logistic.fit_path(X, labels, grid, "rms"), grid, strict=True):
        expected = scikit_learns(X / rms, labels, C)
        np.testing.assert_allclose(np.r_[weights * rms, bias], expected, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3])
def test_a_constant_column_gets_no_weight(value):
    X, labels = columns_and_labels(100, 5, "noisy")
    X[:, 2] = value
    weights, bias = logistic.fit_path(X, labels, [1.0], "standard")[0]
    assert weights[2] == 0
    assert np.isfinite([*weights, bias]).all()


def test_a_silent_feature_gets_no_weight():
    X, labels = columns_and_labels(100, 5, "noisy")
    X[:, 2] = 0
    assert logistic.fit_path(X, labels, [1.0], "rms")[0][0][2] == 0


# what is selected


BY_AUC = QUICK.model_copy(update={"selection": "auc"})


def with_perfect_features():
    train = sae_domain(0)
    X = train.X.tolil()
    for feature in (3, 5):
        X[:, [feature]] = np.where(train.labels == 1, 1.0, 0.0)[:, None]
    return replace(train, X=X.tocsr())


def test_equal_areas_go_to_the_smaller_n_and_the_smaller_c():
    fitted = sae_probes.sparse_probes(with_perfect_features(), 0, BY_AUC)
    chosen = next(probe for probe in only(fitted, "sparse_n") if probe.selected)
    assert chosen.feature_ids.tolist() == [3, 5]
    assert chosen.C == 0.01
    assert chosen.n_tied >= 2 * 2  # with either C, 2 and 8 features separate the classes
    residual = residual_probes.residual(layer_domain(0, d=2, direction=[50, 0]), 0, BY_AUC)[0]
    assert (residual.C, residual.n_tied, residual.n_settings) == (0.01, 2, 2)


def test_where_areas_tie_log_loss_tells_settings_apart():
    chosen = next(p for p in sae_probes.sparse_probes(with_perfect_features(), 0, QUICK) if p.selected and not p.rank)
    assert (chosen.C, chosen.selection, chosen.n_settings) == (1.0, "log_loss", 6)
    assert chosen.n_tied < 6
    assert residual_probes.residual(layer_domain(0, d=2, direction=[50, 0]), 0, QUICK)[0].C == 1.0


def path(auc, log_loss):
    return PathScores(np.array(auc), np.array(log_loss))


def test_each_rule_takes_its_best_mean_and_counts_what_lies_within_a_standard_error():
    folds = [  # sizes x Cs; log loss of the second size at the first C: mean 0.30, standard error 0.05
        path([[0.8, 0.9], [0.9, 0.9]], [[0.50, 0.36], [0.25, 0.34]]),
        path([[0.8, 0.9], [0.9, 0.7]], [[0.50, 0.36], [0.35, 0.34]]),
    ]
    by_loss, by_auc = (choose(folds, [0.1, 1.0], rule) for rule in ("log_loss", "auc"))
    assert (by_loss.size, by_loss.Cs, by_loss.C, by_loss.n_settings, by_loss.n_tied) == (1, [1.0, 0.1], 0.1, 4, 2)
    assert (by_auc.size, by_auc.Cs, by_auc.C, by_auc.n_tied) == (0, [1.0, 0.1], 1.0, 2)


@pytest.mark.parametrize(("kind", "space"), [("residual", LAYER), ("sparse_n", SAE)])
def test_the_other_rule_stands_beside_the_chosen_one(kind, space):
    train = layer_domain(3) if space == LAYER else with_perfect_features()
    fitted, turned = fit(space, train, 0, QUICK), fit(space, train, 0, BY_AUC)

    def chosen(probes, kind):
        (probe,) = [p for p in only(probes, kind) if p.selected]
        return replace(probe, kind="")

    assert same([chosen(fitted, "other_rule")], [chosen(turned, kind)])
    assert same([chosen(fitted, kind)], [chosen(turned, "other_rule")])
    assert {chosen(fitted, kind).selection, chosen(fitted, "other_rule").selection} == {"log_loss", "auc"}


def test_a_perfect_probe_does_not_say_0_52():
    params = BY_AUC.model_copy(update={"C_grid": (0.001,)})
    train = layer_domain(0, d=2, direction=[50, 0])
    (probe,) = cross_validate(partial(residual_probes.residual, params=params), train, 0, params)
    shrunk = replace(probe, platt_slope=1.0, platt_bias=0.0)
    right = np.where(train.labels == 1, 1, -1)
    assert max(right * (shrunk.probability(probe.score(train.X)) - 0.5)) < 0.1
    assert min(right * (probe.probability(probe.score(train.X)) - 0.5)) > 0.3
    assert min(right * probe.oof_logits) > 1


def test_probabilities_that_are_not_shrunk_are_left_alone():
    train = layer_domain(0, direction=np.r_[1.0, np.zeros(19)])
    params = QUICK.model_copy(update={"C_grid": (100.0,)})
    (probe,) = cross_validate(partial(residual_probes.residual, params=params), train, 0, params)
    assert (probe.platt_slope, probe.platt_bias) == (1.0, 0.0)


def test_the_order_of_the_grids_changes_nothing():
    turned = QUICK.model_copy(update={"C_grid": QUICK.C_grid[::-1], "N": QUICK.N[::-1]})
    train = sae_domain(1, planted=ONE_SHARED)
    assert same(sae_probes.sparse_probes(train, 0, QUICK), sae_probes.sparse_probes(train, 0, turned))
    train = layer_domain(1)
    assert same(residual_probes.residual(train, 0, QUICK), residual_probes.residual(train, 0, turned))


@pytest.mark.parametrize(
    ("rule", "gain"), [("auc", auc), ("log_loss", lambda logits, labels: -log_loss_of(labels, expit(logits)))]
)
def test_residual_keeps_the_c_that_is_best_on_average(rule, gain):
    train, grid = layer_domain(3, n=80, d=10, direction=np.r_[1.5, np.zeros(9)]), (0.0001, 0.01, 1.0, 100.0)
    params = QUICK.model_copy(update={"C_grid": grid, "selection": rule})
    gains = []
    for rest, test in train.folded(3, 0):
        mean, deviation = rest.X.mean(axis=0), rest.X.std(axis=0)
        fits = [scikit_learns((rest.X - mean) / deviation, rest.labels, C) for C in grid]
        gains.append([gain((test.X - mean) / deviation @ fit[:-1] + fit[-1], test.labels) for fit in fits])
    found = np.mean(gains, axis=0)
    assert 0 < np.argmax(found) < 3  # neither end, which a wrong choice may hit
    assert grid[int(np.argmax(found))] == residual_probes.residual(train, 0, params)[0].C


def test_one_n_is_selected_and_one_rank():
    fitted = sae_probes.sparse_probes(sae_domain(0, planted=ONE_SHARED), 0, QUICK)
    assert [probe.rank for probe in only(fitted, "sparse_1")] == [1, 2, 3]
    assert [probe.selected for probe in only(fitted, "sparse_1")] == [True, False, False]
    assert [len(probe.weights) for probe in only(fitted, "sparse_n")] == [2, 8, 32]
    assert sum(probe.selected for probe in only(fitted, "sparse_n")) == 1


def test_n_stops_at_the_number_of_features_that_fire():
    fitted = sae_probes.sparse_probes(sae_domain(0, d=5, density=0.3), 0, QUICK)
    assert [len(probe.weights) for probe in only(fitted, "sparse_n")] == [2]
    alone = sae_probes.sparse_probes(sae_domain(0, d=1, density=0.3), 0, QUICK)
    assert [len(probe.weights) for probe in alone] == [1, 1]


def test_an_sae_that_never_fires_is_a_users_error():
    with pytest.raises(UserError, match="no feature fires on 10 of 240 training rows"):
        sae_probes.sparse_probes(sae_domain(0, density=0.0), 0, QUICK)


def test_a_sparse_probe_scores_the_columns_of_its_features():
    train = sae_domain(0, planted=ONE_SHARED)
    for probe in sae_probes.sparse_probes(train, 0, QUICK):
        expected = train.X.toarray()[:, probe.feature_ids] @ probe.weights + probe.bias
        np.testing.assert_allclose(probe.score(train.X), expected, atol=1e-12)
        np.testing.assert_allclose(probe.probability(expected), expit(expected), atol=1e-12)


def test_a_one_sparse_probe_is_scikit_learns_on_its_feature():
    train = sae_domain(0, planted=ONE_SHARED)
    best = only(sae_probes.sparse_probes(train, 0, QUICK), "sparse_1")[0]
    column = train.X.toarray()[:, best.feature_ids]
    rms = np.sqrt(np.mean(column**2))
    np.testing.assert_allclose(
        np.r_[best.weights * rms, best.bias], scikit_learns(column / rms, train.labels, 1.0), atol=1e-4
    )


# cv_auc


def test_cv_auc_is_that_of_the_whole_method_on_the_folds():
    train = layer_domain(0, direction=np.r_[1.0, np.zeros(19)])
    found = cross_validate(partial(residual_probes.residual, params=QUICK), train, 0, QUICK)[0]
    folds = [(residual_probes.residual(rest, 0, QUICK)[0], test) for rest, test in train.folded(3, 0)]
    assert found.cv_auc == pytest.approx(np.mean([auc(probe.score(test.X), test.labels) for probe, test in folds]))
    assert found.n_train == len(train)


def test_a_selected_n_is_judged_by_what_the_folds_selected_and_the_others_by_their_n():
    train = sae_domain(5, planted={SHARED: (0.3, 0.5), SPURIOUS: (0.5, 0.3)})
    found = only(cross_validate(partial(sae_probes.sparse_probes, params=BY_AUC), train, 0, BY_AUC), "sparse_n")
    folds = [(only(sae_probes.sparse_probes(rest, 0, BY_AUC), "sparse_n"), test) for rest, test in train.folded(3, 0)]

    def mean_auc(wanted):
        return np.mean([auc(p.score(t.X), t.labels) for fitted, t in folds for p in fitted if wanted(p)])

    assert len({len(p.weights) for fitted, _ in folds for p in fitted if p.selected}) > 1  # or the test is idle
    for probe in found:
        n = len(probe.weights)
        expected = mean_auc(lambda p: p.selected) if probe.selected else mean_auc(lambda p, n=n: len(p.weights) == n)
        assert probe.cv_auc == pytest.approx(expected)


def test_oof_logits_are_those_of_the_probes_that_the_other_folds_selected():
    sae, layer = sae_domain(0, planted=ONE_SHARED), layer_domain(0, direction=np.r_[1.0, np.zeros(19)])
    for method, train, kinds in (
        (partial(sae_probes.sparse_probes, params=QUICK), sae, ("sparse_1", "sparse_n")),
        (partial(residual_probes.mean_difference, params=QUICK), layer, ("mean_difference",)),
    ):
        found, fold = cross_validate(method, train, 0, QUICK), train.folds(3, 0)
        assert [probe.oof_logits is None for probe in found] == [not probe.selected for probe in found]
        for kind in kinds:
            expected = np.full(len(train), np.nan)
            for k in range(3):
                chosen = next(p for p in only(method(train.take(fold != k), 0), kind) if p.selected)
                expected[fold == k] = chosen.logits(chosen.score(train.take(fold == k).X))
            (probe,) = [p for p in only(found, kind) if p.selected]
            np.testing.assert_allclose(probe.oof_logits, expected)
            assert np.isfinite(probe.oof_logits).all()
    assert {p.oof_logits is None for p in only(fit(SAE, sae, 0, QUICK), "shuffled_labels")} == {True}


def test_a_features_own_area_is_out_of_fold_whatever_the_folds_would_choose():
    train = sae_domain(5, planted={SHARED: (0.3, 0.5)})
    ones = only(sae_probes.sparse_probes(train, 0, QUICK), "sparse_1")
    ranking = sae_probes.ranked(train, 0, QUICK)
    areas = dict(zip(ranking.feature_ids, ranking.auc, strict=True))
    for probe in ones:
        held_out = [
            auc(only(sae_probes.sparse_1(rest, probe.feature_ids), "sparse_1")[0].score(test.X), test.labels)
            for rest, test in train.folded(3, 0)
        ]
        assert probe.feature_cv_auc == pytest.approx(np.mean(held_out), abs=1e-6)
        assert probe.feature_cv_auc == areas[probe.feature_ids[0]]


@pytest.fixture(scope="module")
def noise_areas():
    """cv_auc by kind of probe, for a few seeds, where labels are pure chance."""
    areas = {}
    for seed in range(3):
        wide = sae_domain(seed, d=5000, density=0.05)
        fitted = cross_validate(partial(sae_probes.sparse_probes, params=QUICK), wide, seed, QUICK)
        fitted += fit(LAYER, layer_domain(seed, d=128), seed, QUICK)
        for probe in fitted:
            if probe.kind != "shuffled_labels":  # pca too, at whatever number of components
                areas.setdefault((probe.kind, probe.rank, len(probe.weights)), []).append(probe.cv_auc)
    return areas


def test_pure_noise_has_a_cv_auc_of_one_half_for_every_kind(noise_areas):
    sd = np.sqrt(241 / 12) / 120  # of one AUC by chance, 120 rows against 120
    assert len(noise_areas) == 3 + 3 + 4
    for key, areas in noise_areas.items():
        assert abs(np.mean(areas) - 0.5) < 3.5 * sd / np.sqrt(3), key


def test_ranking_outside_the_folds_would_make_noise_look_predictive():
    wide = sae_domain(0, d=5000, density=0.05)
    best = sae_probes.ranked(wide, 0, QUICK).feature_ids[:32]
    areas = []
    for rest, test in wide.folded(3, 0):
        weights, _ = logistic.fit_path(rest.X[:, best].toarray(), rest.labels, [1.0], "rms")[0]
        areas.append(auc(test.X[:, best] @ weights, test.labels))
    assert np.mean(areas) > 0.7


def remembered(seed, n_groups=60):
    """Each group is one row four times over; what its columns say of its label is chance."""
    rng = np.random.default_rng(seed)
    labels, of_row = balanced(rng, n_groups), np.repeat(np.arange(n_groups), 4)
    dense = Rows(rng.normal(size=(n_groups, 100))[of_row], labels[of_row], groups_of(4 * n_groups, 4))
    return dense, replace(dense, X=features(rng, labels, 300, 0.2)[of_row])


def leak_areas(ungrouped):
    found = []
    for seed in range(3):
        dense, sparse = remembered(seed)
        if ungrouped:
            dense, sparse = (replace(each, groups=groups_of(len(each))) for each in (dense, sparse))
        residual = cross_validate(partial(residual_probes.residual, params=QUICK), dense, seed, QUICK)
        many = cross_validate(partial(sae_probes.sparse_probes, params=QUICK), sparse, seed, QUICK)
        found.append([residual[0].cv_auc, many[-1].cv_auc])
    return np.mean(found, axis=0)


def test_a_row_is_never_judged_by_a_probe_that_saw_its_group():
    sd = np.sqrt(61 / 12) / 30 / np.sqrt(3)
    assert (np.abs(leak_areas(ungrouped=False) - 0.5) < 3.5 * sd).all()
    assert (leak_areas(ungrouped=True) > 0.9).all()


def test_no_group_crosses_folds_at_any_depth(monkeypatch):
    """The first column names the group, so that every fold that is made can be checked from inside."""
    train = sae_domain(0, planted=ONE_SHARED)
    names = np.repeat(np.arange(1.0, 121.0), 2)
    X = train.X.tolil()
    X[:, [0]] = names[:, None]
    train, seen = replace(train, X=X.tocsr()), []

    def checked_rank(X, labels, folds, rule, rank=search.rank_features):
        seen.append(len(labels))
        groups = X[:, [0]].toarray().ravel()
        assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
        return rank(X, labels, folds, rule)

    def checked_folds(self, k, seed, folded=Rows.folded):
        for rest, test in folded(self, k, seed):
            assert not set(rest.X[:, [0]].toarray().ravel()) & set(test.X[:, [0]].toarray().ravel())
            yield rest, test

    monkeypatch.setattr(sae_probes, "rank_features", checked_rank)
    monkeypatch.setattr(Rows, "folded", checked_folds)
    fit(SAE, train, 0, QUICK)
    assert min(seen) < 240 * 4 / 9 + 10  # the folds of the folds were there


# planted truth


@pytest.mark.parametrize("rates", [(0.1, 0.8), (0.8, 0.1)])
def test_a_planted_shared_feature_is_found_first_and_transfers(rates):
    fitted = fit(SAE, sae_domain(0, planted={SHARED: rates}), 0, QUICK)
    elsewhere = sae_domain(100, planted={SHARED: rates})
    best = only(fitted, "sparse_1")[0]
    assert best.feature_ids.tolist() == [SHARED]
    assert np.sign(best.weights[0]) == np.sign(rates[1] - rates[0])
    for probe in (best, next(p for p in only(fitted, "sparse_n") if p.selected)):
        assert probe.cv_auc > 0.8
        assert auc(probe.score(elsewhere.X), elsewhere.labels) > 0.75


def test_a_planted_spurious_feature_is_found_in_domain_and_fails_outside():
    fitted = fit(SAE, sae_domain(0, planted={SPURIOUS: (0.1, 0.9)}), 0, QUICK)
    at_home, elsewhere = (
        sae_domain(100, planted={SPURIOUS: (0.1, 0.9)}),
        sae_domain(101, planted={SPURIOUS: (0.5, 0.5)}),
    )
    best = only(fitted, "sparse_1")[0]
    assert best.feature_ids.tolist() == [SPURIOUS]
    assert auc(best.score(at_home.X), at_home.labels) > 0.8
    assert abs(auc(best.score(elsewhere.X), elsewhere.labels) - 0.5) < 0.13  # 3.5 sd


def test_a_feature_that_turns_around_outside_keeps_its_sign():
    best = only(fit(SAE, sae_domain(0, planted={SHARED: (0.1, 0.8)}), 0, QUICK), "sparse_1")[0]
    turned = sae_domain(100, planted={SHARED: (0.8, 0.1)})
    assert auc(best.score(turned.X), turned.labels) < 0.25


def test_a_planted_direction_is_found_by_the_layers_probes():
    direction = np.r_[2.0, np.zeros(19)]
    fitted = fit(LAYER, layer_domain(0, direction=direction), 0, QUICK)
    elsewhere = layer_domain(100, direction=direction)
    for kind in ("residual", "mean_difference"):
        (probe,) = only(fitted, kind)
        assert np.abs(probe.weights).argmax() == 0
        assert probe.cv_auc > 0.85
        assert auc(probe.score(elsewhere.X), elsewhere.labels) > 0.85


# controls


def test_shuffled_labels_predict_nothing_on_planted_data():
    params = QUICK.model_copy(update={"repeats": 20})
    layer, sae = layer_domain(0, d=64, direction=np.full(64, 0.4)), sae_domain(0, planted=ONE_SHARED)
    elsewhere = [layer_domain(9, d=64, direction=np.full(64, 0.4)), sae_domain(9, planted=ONE_SHARED)]
    controls = [
        residual_probes.shuffled_residual(layer, 0, params, 0.01),
        sae_probes.shuffled_sparse(
            sae, 0, params, Probe("sparse_n", "sparse_n", np.ones(8), 0.0, np.arange(8), C=0.01)
        ),
    ]
    found = {}
    for fitted, test in zip(controls, elsewhere, strict=True):
        for probe in fitted:
            found.setdefault(probe.family, []).append(auc(probe.score(test.X), test.labels))
    assert {family: len(areas) for family, areas in found.items()} == {"residual": 20, "sparse_1": 20, "sparse_n": 20}
    for family, areas in found.items():
        over = intervals.mean_interval(areas)
        assert over.low < 0.5 < over.high, family
        assert np.std(areas) > 0.01  # each repeat is a shuffle of its own


def test_controls_are_numbered_marked_and_sized():
    fitted = only(fit(SAE, sae_domain(0, planted=ONE_SHARED), 0, QUICK), "shuffled_labels")
    assert [(p.family, p.repeat) for p in fitted] == [
        *itertools.product(["sparse_1"], range(4)),
        *itertools.product(["sparse_n"], range(4)),
    ]
    assert {p.n_train for p in fitted} == {240}
    assert len({len(p.weights) for p in fitted}) == 2


# difference of means


def test_mean_difference_is_the_difference_of_means():
    train = layer_domain(0, direction=np.full(20, 0.3))
    (probe,) = residual_probes.mean_difference(train, 0, QUICK)
    high, low = train.X[train.labels == 1].mean(axis=0), train.X[train.labels == 0].mean(axis=0)
    np.testing.assert_allclose(probe.weights, high - low)
    middle = probe.score(((high + low) / 2)[None])
    assert middle[0] == pytest.approx(0, abs=1e-12)


def test_mean_differences_probabilities_are_calibrated():
    direction = np.r_[2.0, np.zeros(63)]
    train, test = layer_domain(0, n=400, d=64, direction=direction), layer_domain(1, n=4000, d=64, direction=direction)
    train, test = (replace(each, X=3 * each.X) for each in (train, test))  # as a logit the score is far too sure now
    (probe,) = residual_probes.mean_difference(train, 0, QUICK)
    scores = probe.score(test.X)
    p = probe.probability(scores)
    for low, high in [(0.1, 0.4), (0.4, 0.6), (0.6, 0.9)]:
        inside = (p > low) & (p < high)
        assert inside.sum() > 200
        assert test.labels[inside].mean() == pytest.approx(p[inside].mean(), abs=0.08)
    raw = thresholds.threshold_metrics(expit(scores), test.labels)["brier"]
    assert thresholds.threshold_metrics(p, test.labels)["brier"] < raw - 0.005


def test_mean_difference_is_not_sure_of_what_chance_gave_it():
    train, test = layer_domain(0, d=64), layer_domain(1, n=2000, d=64)
    (probe,) = residual_probes.mean_difference(train, 0, QUICK)
    assert auc(probe.score(train.X), train.labels) > 0.75  # seen rows would promise much
    p = probe.probability(probe.score(test.X))
    assert thresholds.threshold_metrics(p, test.labels)["brier"] < 0.26


# reproducibility


def test_the_seed_decides_everything():
    for space, train in ((SAE, sae_domain(0, planted=ONE_SHARED)), (LAYER, layer_domain(0))):
        first = fit(space, train, 7, QUICK)
        assert same(first, fit(space, train, 7, QUICK))
        assert not same(first, fit(space, train, 8, QUICK))


def test_fitting_leaves_the_data_as_they_were():
    train = sae_domain(0, planted=ONE_SHARED)
    data, labels = train.X.copy(), train.labels.copy()
    fit(SAE, train, 0, QUICK)
    assert (data != train.X).nnz == 0
    assert train.X.nnz == data.nnz
    np.testing.assert_array_equal(train.labels, labels)


def test_many_columns_are_fitted_as_scikit_learn_does():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(700, logistic.NEWTON_COLUMNS + 50))
    labels = (X[:, 0] + rng.normal(size=700) > 0).astype(int)
    for C in (0.01, 1.0):
        np.testing.assert_allclose(fit_logistic(X, labels, C), scikit_learns(X, labels, C), atol=1e-4)


# what a sweep tunes, and overrides


@pytest.mark.parametrize("scaling", ["rms", "standard", "none"])
def test_a_scaling_of_the_features_is_folded_into_the_weights(scaling):
    train = sae_domain(0, planted=ONE_SHARED)
    ids = np.array([SHARED, SPURIOUS, 3])
    columns = train.X[:, ids].toarray()
    centre = columns.mean(axis=0) if scaling == "standard" else 0.0
    unit = {"rms": np.sqrt(np.mean(columns**2, axis=0)), "standard": columns.std(axis=0), "none": 1.0}[scaling]
    expected = scikit_learns((columns - centre) / unit, train.labels, 0.01)
    probe = sae_probes.sparse_n(train, ids, 0.01, selected=True, scaling=scaling)
    assert probe.scaling == scaling
    np.testing.assert_allclose(
        probe.score(train.X), (columns - centre) / unit @ expected[:-1] + expected[-1], atol=1e-4
    )


@pytest.mark.parametrize("change", [{"ranking": "mean_difference"}, {"scaling": "none"}, {"scaling": "standard"}])
def test_ranking_and_scaling_are_recorded_and_change_the_probes(change):
    train = sae_domain(1, planted=ONE_SHARED)
    params = QUICK.model_copy(update=change)
    before, after = fit(SAE, train, 0, QUICK), fit(SAE, train, 0, params)
    many, controls = only(after, "sparse_n"), only(after, "shuffled_labels", "sparse_n")
    assert {p.scaling for p in many + controls} == {params.scaling}
    assert {p.ranking for p in after if p.kind != "random_features"} == {params.ranking}
    assert {p.scaling for p in only(after, "sparse_1")} == {"rms"}
    assert not np.array_equal(many[-1].weights, only(before, "sparse_n")[-1].weights)
    assert not np.array_equal(controls[0].weights, only(before, "shuffled_labels", "sparse_n")[0].weights)


def test_the_scaling_is_what_is_cross_validated():
    train, one = sae_domain(5, planted={SHARED: (0.3, 0.5)}), {"C_grid": (0.01,), "N": (8,)}
    rms, none = (QUICK.model_copy(update={**one, "scaling": scaling}) for scaling in ("rms", "none"))
    areas = [
        only(cross_validate(partial(sae_probes.sparse_probes, params=p), train, 0, p), "sparse_n")[0].cv_auc
        for p in (rms, none)
    ]
    assert areas[0] != areas[1]


def test_overrides_hold_for_their_space_and_training_set_alone():
    of_people = {"C_grid": [0.1], "N": [8], "ranking": "mean_difference"}
    section = {"C_grid": [1.0], "top_k": 3, "wide": {"people": of_people}}
    params = parse(ProbeParams, section, "probe")
    assert params.at("narrow", "people") == params.at("wide", "sums") == ProbeParams(C_grid=(1.0,), top_k=3)
    chosen = params.at("wide", "people")
    assert chosen == ProbeParams(C_grid=(0.1,), N=(8,), ranking_n="mean_difference", top_k=3)
    assert (chosen.ranking, chosen.rule_n) == ("auc", "mean_difference")
    assert params.rule_n == "auc"


def test_an_overridden_ranking_changes_the_n_sparse_probes_rule_alone():
    """What a sweep tunes is the N-sparse probe: the 1-sparse one keeps the study's rule, which others compare by."""
    train = sae_domain(5, planted={SHARED: (0.3, 0.5), SPURIOUS: (0.5, 0.3)})
    params = QUICK.model_copy(update={"overrides": {"s": {"a": Tunable(ranking="mean_difference")}}}).at("s", "a")
    usual, chosen = (fit(SAE, train, 0, each) for each in (QUICK, params))
    assert same(only(usual, "sparse_1"), only(chosen, "sparse_1"))
    assert same(*(only(found, "shuffled_labels", "sparse_1") for found in (usual, chosen)))
    best = sae_probes.ranked(train, 0, params, "mean_difference").feature_ids
    assert best[:8].tolist() != sae_probes.ranked(train, 0, params).feature_ids[:8].tolist()  # or the test is idle
    for probe in only(chosen, "sparse_n"):
        assert probe.ranking == "mean_difference"
        assert probe.feature_ids.tolist() == best[: len(probe.weights)].tolist()
    study_wide = fit(SAE, train, 0, QUICK.model_copy(update={"ranking": "mean_difference"}))
    assert same(only(study_wide, "sparse_n"), only(chosen, "sparse_n"))
    shuffled = [only(found, "shuffled_labels", "sparse_n") for found in (usual, chosen)]
    assert {probe.ranking for probe in shuffled[1]} == {"mean_difference"}
    assert not same(*shuffled)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"n_fold": 3}, "unknown key probe.n_fold; did you mean n_folds?"),
        ({"wide": None}, "unknown key probe.wide"),
        ({"wide": {"people": {"n": [8]}}}, "unknown key probe.wide.people.n"),
        ({"wide": {"people": {"top_k": 3}}}, "unknown key probe.wide.people.top_k; known: C_grid, N, ranking, scaling"),
        ({"wide": {"people": [8]}}, "probe.wide.people = [8]: Input should be a valid dictionary"),
        ({"wide": {"people": {"scaling": "max"}}}, "probe.wide.people.scaling = 'max'"),
        ({"overrides": {"wide": {"people": {}}}}, "unknown key probe.overrides.wide.people"),
        ({"C_grid": []}, "probe.C_grid = []"),
        ({"C_grid": [0.0]}, "probe.C_grid.0 = 0.0: Input should be greater than 0"),
        ({"N": [0]}, "probe.N.0 = 0: Input should be greater than 0"),
    ],
)
def test_a_wrong_override_is_named_with_its_place(section, said):
    with pytest.raises(UserError) as caught:
        parse(ProbeParams, section, "probe")
    assert str(caught.value).startswith(said)
