from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from domains import PLANTED, again, domain, graded, relabelled, resamples, same_data, stream, table, world
from planted import SHARED, SPURIOUS
from sae_transfer.analyses import predictors as module
from sae_transfer.analyses.candidate_statistics import LABEL_FREE, TARGET_ACCESS, with_consensus
from sae_transfer.analyses.candidates import FEATURES
from sae_transfer.analyses.predictors import COMBINED, TABLE, predictors, ridge, spearman


@pytest.fixture(scope="module")
def domains():
    return world(resamples=20)


@pytest.fixture(scope="module")
def best(domains):
    return resamples(domains, 3)


@pytest.fixture(scope="module")
def known(domains, best):
    return table(domains, best)


@pytest.fixture(scope="module")
def scores(domains, known):
    return predictors(known, same_data(domains))


def score(scores, predictor, scope, column="spearman", candidates="features", **where):
    rows = scores[(scores.predictor == predictor) & (scores.scope == scope) & (scores.candidates == candidates)]
    for name, value in where.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0][column]


# planted truth


def test_the_combined_model_prefers_the_shared_feature_on_a_domain_that_it_never_saw(known):
    for b in "bcd":
        here = known[(known.train == "a") & (known.test == b)].set_index("candidate")
        assert here.loc[str(SHARED), "predicted"] > here.loc[str(SPURIOUS), "predicted"] + 0.1
        features = here[here.origin == "top"]
        assert features["predicted"].idxmax() == str(SHARED)


def test_what_predicts_is_told_from_what_does_not():
    domains = graded(10)
    scores = predictors(table(domains, resamples(domains, 2)), same_data(domains))
    for predictor in ("consensus_mean", "agreement_sources", "agreement_target", "few_64"):
        assert score(scores, predictor, "pair", train="a", test="b") > 0.5
    assert score(scores, "cv_auc", "pair", train="a", test="b") < 0.3
    assert score(scores, COMBINED, "held_out", "r2", held_out="b", role="target") > 0.3


def test_on_noise_nothing_predicts():
    domains = [domain(name, i, {}, resamples=10) for i, name in enumerate("abcd")]
    scores = predictors(table(domains, resamples(domains, 2)), same_data(domains))
    within = scores[(scores.scope == "within") & (scores.target_access != "labels")]["spearman"].dropna()
    assert within.abs().max() < 0.25
    held = scores[(scores.scope == "held_out") & (scores.target_access != "labels") & (scores.candidates == "features")]
    assert held["r2"].dropna().mean() < 0.02


# what may not be seen


def test_predictions_for_b_see_no_label_of_b_and_no_test_row_of_b(domains, best, known):
    a, b, *rest = domains
    for part in ("test", "train"):
        again = table([a, relabelled(b, part), *rest], best)
        for_b = [t.loc[t.test == "b", "predicted"].reset_index(drop=True) for t in (known, again)]
        pd.testing.assert_series_equal(*for_b)
        others = [t.loc[t.test == "c", "predicted"].reset_index(drop=True) for t in (known, again)]
        assert others[0].equals(others[1]) == (part == "test")  # no test row of any domain has a part in it


def test_the_domain_left_out_is_neither_source_nor_target_nor_witness(known, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "ridge", lambda X, y: seen.append((X, y)) or (lambda X: np.zeros(len(X))))
    module._predicted(*module._without(known, frozenset("d")), ["consensus_mean", "agreement_sources"])
    kept = known[(known.train != "d") & (known.test != "d")]
    expected = with_consensus(kept, {"d"})[["consensus_mean", "agreement_sources"]].to_numpy(dtype=float)
    np.testing.assert_array_equal(seen[0][0], expected)
    assert not np.array_equal(expected, kept[["consensus_mean", "agreement_sources"]].to_numpy(dtype=float))


# the numbers


def test_scores_equal_scipys(known, scores):
    features = known[known.origin.isin(FEATURES)]
    points = {}
    for (a, b), rows in features.groupby(["train", "test"]):
        points[a, b] = stats.spearmanr(rows["agreement_sources"], rows["auc"], nan_policy="omit").statistic
        assert score(scores, "agreement_sources", "pair", train=a, test=b) == pytest.approx(points[a, b])
    assert score(scores, "agreement_sources", "within") == pytest.approx(np.mean(list(points.values())))
    assert score(scores, "agreement_sources", "within", "spearman_min") == pytest.approx(min(points.values()))
    everything = stats.spearmanr(features["agreement_sources"], features["auc"], nan_policy="omit").statistic
    assert score(scores, "agreement_sources", "across") == pytest.approx(everything)
    there = features.dropna(subset="agreement_sources")
    r2 = np.corrcoef(there["agreement_sources"], there["auc"])[0, 1] ** 2
    assert score(scores, "agreement_sources", "across", "r2") == pytest.approx(r2)


def test_few_labels_are_scored_draw_by_draw(known, scores):
    rows = known[(known.train == "a") & (known.test == "b") & (known.origin.isin(FEATURES))]
    points = [spearman(rows[f"few_16.{draw}"].to_numpy(), rows["auc"].to_numpy()) for draw in range(4)]
    assert score(scores, "few_16", "pair", train="a", test="b") == pytest.approx(np.mean(points))


def test_every_row_says_how_many_domains_it_rests_on_and_what_it_sees(scores):
    assert list(scores.columns) == TABLE.names
    assert set(scores.loc[scores.scope == "pair", "n_domains"]) == {2}
    assert set(scores.loc[scores.scope == "within", "n_domains"].dropna()) == {4}
    sees = scores.set_index("predictor")["target_access"]
    for name, expected in (TARGET_ACCESS | {"few_16": "labels", COMBINED: "rows"}).items():
        assert set(sees[[name]]) == {expected}
    missing = scores[scores["spearman"].isna() & scores["r2"].isna()]
    assert (missing["reason"].fillna("") != "").all()


def test_a_number_for_each_domain_left_out_and_role(scores):
    held = scores[(scores.scope == "held_out") & (scores.predictor == COMBINED) & (scores.candidates == "features")]
    assert sorted(zip(held["held_out"], held["role"], strict=True)) == [
        (name, role) for name in "abcd" for role in ("source", "target")
    ]
    assert set(held["n_pairs"]) == {3}


def test_ridge_equals_scikit_learns():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (60, 3)) * [1.0, 10.0, 0.1]
    y = X @ [1.0, 0.2, -3.0] + rng.normal(size=60)
    unseen = rng.uniform(-1, 1, (9, 3)) * [1.0, 10.0, 0.1]
    reference = make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(X, y)
    np.testing.assert_allclose(ridge(X, y)(unseen), reference.predict(unseen), atol=1e-10)


def test_ridge_learns_what_a_missing_value_means():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 1))
    y = 0.7 + 0.1 * X[:, 0]
    X[:100], y[:100] = np.nan, 0.5
    predict = ridge(X, y)
    assert predict(np.array([[np.nan]]))[0] == pytest.approx(0.5, abs=0.02)
    assert predict(np.array([[0.0]]))[0] == pytest.approx(0.7, abs=0.02)
    assert np.isfinite(predict(np.array([[1e9]]))).all()


def test_spearman_is_missing_for_few_or_constant_values():
    y = np.arange(20.0)
    assert np.isnan(spearman(np.r_[np.arange(5.0), np.full(15, np.nan)], y))
    assert np.isnan(spearman(np.ones(20), y))
    assert spearman(-(y**3), y) == pytest.approx(-1)


# bad input


def test_two_domains_leave_nothing_to_learn_from(domains, best):
    found = table(domains[:2], best)
    assert found["predicted"].isna().all()
    scores = predictors(found, same_data(domains[:2]))
    held = scores[scores.scope == "held_out"]
    assert len(held)
    assert held["spearman"].isna().all()
    assert held["reason"].str.contains("no pair is left without").all()
    assert "no pair has a value" in score(scores, "consensus_mean", "within", "reason")


def test_the_same_rows_under_two_names_count_once_and_are_left_out_together(domains, best):
    a, b, c, d = domains
    b, twin = again(b)
    among = [a, b, twin, c, d]
    best = best | {twin.name: best["b"]}
    found = table(among, best)
    scores = predictors(found, same_data(among))
    held = scores[(scores.scope == "held_out") & (scores.predictor == COMBINED) & (scores.candidates == "features")]
    assert set(held["held_out"]) == {"a", "b", "c", "d"}
    assert score(scores, "cv_auc", "across", "n_domains") == 4
    changed = table([a, b, replace(relabelled(b, "train"), name=twin.name), c, d], best)
    for_b = [t.loc[t.test == "b", "predicted"].reset_index(drop=True) for t in (found, changed)]
    pd.testing.assert_series_equal(*for_b)  # a label of B's twin is a label of B


def test_a_domain_with_one_class_among_its_test_rows_is_left_aside(domains, best):
    one = replace(domains[1], test=replace(domains[1].test, labels=np.ones_like(domains[1].test.labels)))
    among = [domains[0], one, *domains[2:]]
    scores = predictors(table(among, best), same_data(among))
    assert not (scores["test"] == "b").any()
    assert np.isfinite(score(scores, "agreement_sources", "within"))


def test_constant_activations_do_not_stop_the_rest(domains, best):
    streams = {each.name: stream(each) for each in domains}
    streams = {
        name: replace(each, train=replace(each.train, X=np.ones_like(each.train.X))) for name, each in streams.items()
    }
    scores = predictors(table(domains, best, streams), same_data(domains))
    assert "no pair has a value" in score(scores, "mahalanobis_test", "within", "reason")
    assert np.isfinite(score(scores, COMBINED, "held_out", "r2", held_out="b", role="target"))
    assert set(LABEL_FREE) <= set(scores["predictor"])
    assert set(PLANTED) == {"a", "b", "c", "d"}
