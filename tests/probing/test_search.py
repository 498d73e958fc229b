import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from planted import SHARED, SPURIOUS, balanced, features, sae_domain
from sae_transfer.core.errors import UserError
from sae_transfer.probing.search import MIN_ROWS, column_auc, entries, fit_columns, rank_features


def folds_of(n, k=5):
    return np.arange(n) % k


def mixed(seed, n=200, d=30):
    """Features of many kinds: dense and rare, heavy-tailed, huge and tiny, for and against the label."""
    rng = np.random.default_rng(seed)
    labels = balanced(rng, n)
    rates = {0: (0.1, 0.7), 1: (0.6, 0.1), 2: (0.0, 0.5), 3: (0.5, 0.0), 4: (1.0, 1.0)}
    X = features(rng, labels, d, 0.3, rates).toarray()
    X[:, 5] = np.round(X[:, 5])  # ties
    X[:, 6] *= 1e6
    X[:, 7] *= 1e-6
    X[:, 8] **= 8
    X[:, 9] = 3.0
    return sparse.csr_array(X), labels


def one_by_one(X, labels, folds):
    """The slow way: a scikit-learn fit for each feature and fold."""
    X = X.toarray()
    result = []
    for feature in np.flatnonzero((X > 0).sum(axis=0) >= 10):
        areas, losses = [], []
        for fold in np.unique(folds):
            rest, test = folds != fold, folds == fold
            column = X[:, [feature]] / np.sqrt(np.mean(X[rest, feature] ** 2))
            model = LogisticRegression(C=1, solver="newton-cholesky", tol=1e-12, max_iter=1000)
            model.fit(column[rest], labels[rest])
            areas.append(roc_auc_score(labels[test], model.coef_[0, 0] * column[test, 0]))
            losses.append(log_loss(labels[test], model.predict_proba(column[test])[:, 1]))
        result.append((feature, np.mean(areas), np.mean(losses)))
    return sorted(result, key=lambda each: (-round(each[1], 12), each[2], each[0]))


def ranked_in(columns, labels, folds):
    return rank_features(sparse.csr_array(np.column_stack(columns)), labels, folds)


def ranked(columns, labels, k=5):
    return ranked_in(columns, labels, np.arange(len(labels)) // 2 % k)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # the oracle's, on a constant column
@pytest.mark.parametrize("seed", [0, 1])
def test_the_fast_search_equals_the_slow_loop(seed):
    X, labels = mixed(seed)
    found, expected = rank_features(X, labels, folds_of(200)), one_by_one(X, labels, folds_of(200))
    ids, areas, losses = (np.array(column) for column in zip(*expected, strict=True))
    constant = ids == 9  # its scale is 0 but for rounding; both sides of it are ties of 0.5
    np.testing.assert_array_equal(found.feature_ids, ids)
    np.testing.assert_allclose(found.auc[~constant], areas[~constant], atol=1e-12)
    np.testing.assert_allclose(found.log_loss, losses, atol=1e-6)
    np.testing.assert_allclose(found.density, (X.toarray() > 0).mean(axis=0)[ids])


@pytest.mark.parametrize("seed", [0, 1])
def test_scale_and_bias_equal_scikit_learns(seed):
    X, labels = mixed(seed)
    rows = folds_of(200) != 0
    scale, bias = fit_columns(entries(X), X.shape[1], labels, rows)
    dense = X.toarray()
    rms = np.sqrt(np.mean(dense[rows] ** 2, axis=0))
    for feature in range(X.shape[1]):
        model = LogisticRegression(C=1, solver="newton-cholesky", tol=1e-12, max_iter=1000)
        model.fit(dense[rows][:, [feature]] / rms[feature], labels[rows])
        assert scale[feature] * rms[feature] == pytest.approx(model.coef_[0, 0], abs=1e-4)
        assert bias[feature] == pytest.approx(model.intercept_[0], abs=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.05, 0.01])
@pytest.mark.parametrize("kind", ["gamma", "heavy", "separable", "one huge row", "tiny"])
def test_every_fit_converges_whatever_the_column(share, kind):
    rng = np.random.default_rng(0)
    labels = (np.arange(600) < 600 * share).astype(int)
    X = (rng.random((600, 200)) < rng.choice([0.02, 0.3, 1.0], 200)) * rng.gamma(2.0, 1.0, (600, 200))
    X[:, 0], X[0] = 0, 1
    if kind == "heavy":
        X *= np.exp(4 * rng.normal(size=X.shape))
    if kind == "separable":
        X *= labels[:, None]
    if kind == "one huge row":
        X[-1] *= 1e6
    if kind == "tiny":
        X *= 1e-20
    scale, bias = fit_columns(entries(sparse.csr_array(X)), 200, labels, np.ones(600, dtype=bool))
    rms = np.sqrt(np.mean(X**2, axis=0))
    wrong = expit(X * scale + bias) - labels[:, None]
    np.testing.assert_allclose((wrong * X / rms).sum(axis=0) + scale * rms, 0, atol=1e-5)  # the gradient vanishes
    np.testing.assert_allclose(wrong.sum(axis=0), 0, atol=1e-5)


def test_a_feature_of_unanswerable_questions_ranks_as_high_as_its_mirror():
    labels = np.tile([0, 1], 100)
    fires = np.repeat(np.random.default_rng(1).random(100) < 0.8, 2) * 1.0
    found = ranked([(1 - labels) * fires, labels * fires], labels, k=4)
    scale, _ = fit_columns(entries(sparse.csr_array(((1 - labels) * fires)[:, None])), 1, labels, np.ones(200, bool))
    assert scale[0] < 0
    assert found.auc[0] == pytest.approx(found.auc[1], abs=0.01)
    assert found.auc.min() > 0.8


def test_the_sign_comes_from_the_training_folds():
    folds = np.repeat([0, 1], 100)
    labels = np.tile([0, 1], 100)
    column = np.where(folds == 0, labels, 1 - labels)[:, None] * 1.0  # for in one fold, against in the other
    found = rank_features(sparse.csr_array(column), labels, folds)
    assert found.auc[0] == 0


def test_a_separable_feature_stays_finite():
    labels = np.tile([0, 1], 100)
    found = ranked([labels * 1.0], labels)
    scale, bias = fit_columns(entries(sparse.csr_array(labels[:, None] * 1.0)), 1, labels, np.ones(200, bool))
    model = LogisticRegression(C=1, tol=1e-12).fit(labels[:, None] * np.sqrt(2), labels)
    assert found.auc[0] == 1
    assert scale[0] == pytest.approx(model.coef_[0, 0] * np.sqrt(2), abs=1e-4)
    assert bias[0] == pytest.approx(model.intercept_[0], abs=1e-4)


def test_identical_features_rank_by_id():
    rng = np.random.default_rng(0)
    labels = balanced(rng, 200)
    noise = [rng.random(200) * (rng.random(200) < 0.3) for _ in range(20)]
    twin = labels * rng.random(200)
    columns = [*noise[:7], twin, *noise[7:12], twin, *noise[12:], twin]
    found = ranked(columns, labels)
    assert found.feature_ids[:3].tolist() == [7, 13, 22]
    assert len(set(found.log_loss[:3])) == 1


def test_log_loss_breaks_ties_of_auc():
    labels = np.tile([0, 1], 100)
    blurred = np.where(labels, 1.0, 0.99)  # as well ordered as the sharp one, but it hardly moves the probability
    found = ranked([blurred, labels * 1.0], labels)
    assert found.auc.tolist() == [1, 1]
    assert found.feature_ids.tolist() == [1, 0]


def test_the_order_of_the_folds_breaks_no_tie():
    rng = np.random.default_rng(0)
    folds, labels = np.repeat(np.arange(5), 40), np.tile([0, 1], 100)
    by_fold = rng.random((5, 40)) * (rng.random((5, 40)) < np.where(labels, 0.7, 0.3)[:40])
    columns = [by_fold[rng.permutation(5)].ravel() for _ in range(30)]  # the same folds, summed in another order
    found = ranked_in(columns, labels, folds)
    assert len(np.unique(found.auc)) > 1  # the sums do differ by rounding
    assert found.feature_ids.tolist() == list(range(30))


def test_a_feature_that_seldom_fires_is_left_out():
    labels = np.tile([0, 1], 100)
    columns = np.zeros((200, 3))
    columns[:9, 0], columns[:10, 1], columns[:, 2] = 1, 1, 1
    found = rank_features(sparse.csr_array(columns), labels, folds_of(200))
    assert sorted(found.feature_ids.tolist()) == [1, 2]
    assert found.density[found.feature_ids == 1] == 0.05


def test_a_stored_zero_is_silence():
    X, labels = mixed(0)
    stored = X.tocsc()
    stored.data[::3] = 0.0
    clean = sparse.csr_array(stored.toarray())
    assert stored.nnz > clean.nnz
    for one, other in zip(
        vars(rank_features(stored, labels, folds_of(200))).values(),
        vars(rank_features(clean, labels, folds_of(200))).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert stored.nnz == X.nnz  # what was passed is left as it was


def test_silence_in_a_fold_scores_one_half_there():
    folds, labels = np.repeat([0, 1, 2, 3], 50), np.tile([0, 1], 100)
    column = np.where(folds == 0, 0.0, labels)
    assert rank_features(sparse.csr_array(column[:, None]), labels, folds).auc[0] == pytest.approx((0.5 + 3) / 4)


def test_silence_outside_a_fold_gives_no_sign_and_scores_one_half():
    folds, labels = np.repeat([0, 1, 2, 3], 50), np.tile([0, 1], 100)
    column = np.where(folds == 0, labels, 0.0)
    assert rank_features(sparse.csr_array(column[:, None]), labels, folds).auc[0] == 0.5


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("n_rows", [1, 50])
def test_an_activation_that_cannot_be_is_refused(bad, n_rows):
    columns = np.ones((200, 2))
    columns[:, 1] = np.where(np.arange(200) < n_rows, bad, 0)
    with pytest.raises(UserError, match=rf"the matrix of features has {bad} in row 0, column 1; "):
        rank_features(sparse.csr_array(columns), np.tile([0, 1], 100), folds_of(200))


def test_no_feature_that_fires_gives_an_empty_ranking():
    assert len(rank_features(sparse.csr_array((200, 5)), np.tile([0, 1], 100), folds_of(200)).feature_ids) == 0


def test_pure_noise_scores_one_half_on_average():
    rng = np.random.default_rng(0)
    labels = balanced(rng, 240)
    found = rank_features(features(rng, labels, 1000, 0.2), labels, folds_of(240))
    # sd of a feature's AUC is below 0.04, and 5 standard errors of the mean of 1,000 are 0.006
    assert abs(found.auc.mean() - 0.5) < 0.0065
    assert found.auc.max() > 0.57  # the best of many is good by luck alone


def test_the_order_of_columns_changes_nothing():
    X, labels = mixed(2)
    mixed_up = np.random.default_rng(0).permutation(X.shape[1])
    one, other = rank_features(X, labels, folds_of(200)), rank_features(X[:, mixed_up], labels, folds_of(200))
    np.testing.assert_array_equal(mixed_up[other.feature_ids], one.feature_ids)
    np.testing.assert_allclose(other.auc, one.auc, atol=1e-12)
    np.testing.assert_allclose(other.log_loss, one.log_loss, atol=1e-9)


# the rule of difference of means


def slow_mean_difference(X, labels):
    """sae-probes' rule in plain loops: {feature that fires often enough: score}."""
    scores = {}
    for feature, column in enumerate(X.toarray().T):
        fired = column[column > 0]
        if len(fired) >= MIN_ROWS:
            scaled = column / fired.mean()
            scores[feature] = abs(scaled[labels == 1].mean() - scaled[labels == 0].mean())
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_the_order_by_difference_of_means_equals_the_slow_loops(seed):
    domain = sae_domain(seed, d=60, planted={SHARED: (0.1, 0.7), SPURIOUS: (0.6, 0.2)})
    folds = np.arange(len(domain)) % 4
    found = rank_features(domain.X, domain.labels, folds, "mean_difference")
    scores = slow_mean_difference(domain.X, domain.labels)
    assert found.feature_ids.tolist() == sorted(scores, key=lambda f: (-round(scores[f], 12), f))
    assert set(found.feature_ids[:2]) == {SHARED, SPURIOUS}


def test_either_rule_reports_the_same_numbers_of_a_feature():
    domain = sae_domain(0, d=60)
    folds = np.arange(len(domain)) % 4
    by_auc, by_mean = (rank_features(domain.X, domain.labels, folds, rule) for rule in ("auc", "mean_difference"))
    assert by_auc.feature_ids.tolist() != by_mean.feature_ids.tolist()
    for name in ("auc", "log_loss", "density"):
        one, other = (dict(zip(r.feature_ids, getattr(r, name), strict=True)) for r in (by_auc, by_mean))
        assert one == other


def test_difference_of_means_does_not_see_the_unit_of_a_feature():
    domain = sae_domain(0, d=60)
    folds = np.arange(len(domain)) % 4
    stretched = domain.X.multiply(np.geomspace(1e-3, 1e3, 60)).tocsr()
    orders = [rank_features(X, domain.labels, folds, "mean_difference").feature_ids for X in (domain.X, stretched)]
    np.testing.assert_array_equal(*orders)


def test_equal_differences_of_means_go_to_the_smaller_id():
    domain = sae_domain(0, d=60)
    twice = sparse.csr_array(sparse.hstack([domain.X[:, [7]], domain.X[:, [7]], domain.X]))
    found = rank_features(twice, domain.labels, np.arange(len(domain)) % 4, "mean_difference").feature_ids.tolist()
    assert found.index(0) + 1 == found.index(1) == found.index(9) - 1


def test_column_auc_equals_scikit_learns_with_the_sign_given():
    rng = np.random.default_rng(0)
    labels = balanced(rng, 60)
    X = features(rng, labels, d=6, planted={0: (0.1, 0.9)})
    sign = np.array([1.0, -1.0, 0.0, 2.5, -0.1, 1.0])
    expected = [roc_auc_score(labels, np.sign(s) * column) for s, column in zip(sign, X.toarray().T, strict=True)]
    np.testing.assert_allclose(column_auc(X, labels, sign), expected, atol=1e-12)
    assert np.isnan(column_auc(X, np.ones(60, dtype=int), sign)).all()
