"""The probes as scikit-learn's classifiers: its own checks, and the numbers of the stage `fit`."""

import pickle

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from planted import SHARED, layer_domain, sae_domain
from sae_transfer.core.space import residual_stream, sae_features
from sae_transfer.probing.estimators import MeanDifferenceProbe, ResidualProbe, SparseProbe
from sae_transfer.probing.kinds import fit
from sae_transfer.probing.probe_params import ProbeParams

FEW = "too few rows: a feature that fires on fewer than 10 is not ranked"
EXPECTED = {  # docs/python.md names them
    "check_decision_proba_consistency": "it gives negative values, which no SAE does",
    "check_classifier_data_not_an_array": FEW,
    "check_fit2d_1feature": FEW,
}
PARAMS = ProbeParams(n_folds=3, C_grid=(0.01, 1.0), N=(2, 8), top_k=3, repeats=1)
CHOSEN = {"C_grid": [0.01, 1.0], "n_folds": 3, "seed": 4}
SAE = sae_domain(1, n=120, d=40, planted={SHARED: (0.1, 0.8)})
LAYER = layer_domain(1, n=120, d=6, direction=[1.5, 0, 0, 0, 0, 0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "failing"),
    [(ResidualProbe(), {}), (MeanDifferenceProbe(), {}), (SparseProbe(), EXPECTED)],
    ids=lambda value: type(value).__name__,
)
def test_scikit_learn_finds_nothing_else_wrong(estimator, failing):
    found = check_estimator(estimator, expected_failed_checks=failing, on_skip=None)
    assert {one["check_name"] for one in found if one["status"] == "xfail"} == set(failing)
    assert sum(one["status"] == "passed" for one in found) > 40


@pytest.mark.parametrize(
    ("estimator", "kind", "n"),
    [
        (ResidualProbe(**CHOSEN), "residual", 0),
        (MeanDifferenceProbe(n_folds=3, seed=4), "mean_difference", 0),
        (SparseProbe(**CHOSEN), "sparse_1", 1),
        (SparseProbe(8, **CHOSEN), "sparse_n", 8),
    ],
    ids=str,
)
def test_numbers_are_those_of_the_stage(estimator, kind, n):
    train = SAE if "sparse" in kind else LAYER
    space = sae_features("s", 1) if "sparse" in kind else residual_stream(1)
    fitted = [one for one in fit(space, train, 4, PARAMS) if one.kind == kind and one.rank <= 1]
    (expected,) = [one for one in fitted if one.n_features == n]
    found = estimator.fit(train.X, np.where(train.labels, "yes", "no"), groups=train.groups)
    np.testing.assert_array_equal(found.probe_.weights, expected.weights)
    np.testing.assert_array_equal(found.decision_function(train.X), expected.decision_function(train.X))
    np.testing.assert_array_equal(found.predict_proba(train.X)[:, 1], expected.probability(expected.score(train.X)))
    assert list(found.classes_) == ["no", "yes"]
    assert (found.predict(train.X) == "yes").tolist() == expected.predict(train.X).astype(bool).tolist()


def test_n_is_chosen_where_none_is_given():
    found = SparseProbe(None, **CHOSEN).fit(SAE.X, SAE.labels)
    assert found.probe_.kind == "sparse_n"
    assert found.probe_.n_features in ProbeParams().N


def test_they_work_in_scikit_learns_tools():
    y, groups = SAE.labels, SAE.groups
    areas = cross_val_score(SparseProbe(), SAE.X, y, groups=groups, cv=GroupKFold(3), scoring="roc_auc")
    assert areas.min() > 0.75
    search = GridSearchCV(SparseProbe(C_grid=[1.0], n_folds=3), {"n_features": np.array([1, 4])}, cv=3).fit(SAE.X, y)
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(SAE.X), search.predict(SAE.X))


@pytest.mark.parametrize("estimator", [ResidualProbe(), MeanDifferenceProbe(), SparseProbe()])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(estimator, bad):
    X = np.abs(LAYER.X)
    fitted = estimator.fit(X, LAYER.labels)
    X = np.where(np.arange(X.size).reshape(X.shape) == 8, bad, X)
    for use in (fitted.predict_proba, lambda X: estimator.fit(X, LAYER.labels)):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            use(X)


@pytest.mark.parametrize(
    ("estimator", "X", "message"),
    [
        (SparseProbe(0), SAE.X, r"SparseProbe\.N\.0 = 0: Input should be greater than 0"),
        (SparseProbe(ranking="best"), SAE.X, r"SparseProbe\.ranking = 'best'"),
        (SparseProbe(), -SAE.X.toarray(), "Negative values in data passed to SparseProbe"),
        (ResidualProbe(), SAE.X, "[Ss]parse data was passed"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(estimator, X, message):
    with pytest.raises((ValueError, TypeError), match=message):
        estimator.fit(X, SAE.labels)


def test_groups_are_never_torn_apart():
    with pytest.raises(ValueError, match="2 folds by group need 2 groups of each label, found 120 rows in 2 groups"):
        ResidualProbe().fit(LAYER.X, LAYER.labels, groups=LAYER.labels)
