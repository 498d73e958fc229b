"""Planted features that split, stay or vanish; the table of SAEs against each other."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LinearRegression

from planted import QUICK, balanced, features, groups_of
from sae_transfer.analyses import feature_matches, sae_comparison
from sae_transfer.analyses.feature_matches import match_rows
from sae_transfer.analyses.feature_splitting import (
    TABLE,
    family,
    rebuilt_share,
    split_rows,
    summarise,
    within_classes,
)
from sae_transfer.artifacts.features import Directions, Health
from sae_transfer.core.space import sae_features
from sae_transfer.probing import evaluations, sae_probes
from sae_transfer.probing.rows import Rows
from sae_transfer.stats import intervals

PARENT, FIRST, SECOND, D = 17, 3, 8, 60


def two_saes(seed, kind, n=240):
    """The same rows in two SAEs; the parent is a feature of the first and, in the second, two, one or none."""
    rng = np.random.default_rng(seed)
    labels, groups = balanced(rng, n), groups_of(n, 2)
    own = features(rng, labels, D, planted={PARENT: (0.03, 0.9)}).tolil()
    other = features(rng, labels, D).tolil()
    active = own[:, [PARENT]].toarray().ravel()
    half = rng.random(n) < 0.6
    if kind == "split":
        other[:, [FIRST]], other[:, [SECOND]] = (active * half)[:, None], (active * ~half)[:, None]
    if kind == "kept":
        other[:, [FIRST]] = 2 * active[:, None]
    return [Rows(sparse.csr_array(X), labels, groups) for X in (own, other)]


def grown(kind):
    own, other = two_saes(0, kind)
    parent = sae_probes.sparse_1(own, sae_probes.ranked(own, 0, QUICK).feature_ids[:1])[0]
    assert parent.feature_ids == [PARENT]
    return family(parent, own, other, 3, 0)


def on_b(kind, found):
    own, other = two_saes(1, kind)
    test = evaluations.evaluation_of(own.labels, own.groups, "b", 0, evaluations.TransferParams(resamples=300))
    return list(split_rows(found, own.X, other.X, test))


def test_a_planted_split_is_recognised_with_exactly_its_two_children():
    found = grown("split")
    assert found.fate == "split"
    assert found.needed == 2
    assert set(found.children[1].feature_ids) == {FIRST, SECOND}
    one, two, *_ = on_b("split", found)
    assert one["delta_high"] < -0.1
    assert not one["label_recovered"]
    assert two["delta"] == pytest.approx(0, abs=0.01)
    assert two["label_recovered"]
    assert one["rebuilt"] < 0.8 < 0.99 < two["rebuilt"]
    assert two["delta_low"] <= two["delta"] <= two["delta_high"]
    assert two["child_ids"] in (f"{FIRST} {SECOND}", f"{SECOND} {FIRST}")
    made = TABLE.frame(row | {"sae": "n", "other": "w", "train": "a", "in_domain": False} for row in (one, two))
    said = summarise(made)[0]
    assert said.startswith("n in w: best features split 1; out of domain one child changes AUC by -0.")
    assert "what is needed changes AUC by +0.00" in said.replace("-0.00", "+0.00")


def test_a_feature_that_stays_needs_one_child_and_loses_nothing():
    found = grown("kept")
    assert (found.fate, found.needed) == ("kept", 1)
    first = on_b("kept", found)[0]
    assert first["child_ids"] == str(FIRST)
    assert first["delta"] == first["delta_low"] == first["delta_high"] == 0


def test_another_detector_of_the_label_is_no_child():
    """The parent's copy is a weaker detector of the label than another feature, which its classes alone share."""
    own, other = two_saes(0, "kept")
    rng, with_rival = np.random.default_rng(5), other.X.tolil()
    with_rival[:, [SECOND]] = np.where(own.labels == 1, 1 + rng.random(len(own)), 0.0)[:, None]
    parent = sae_probes.sparse_1(own, np.array([PARENT]))[0]
    found = family(parent, own, replace(other, X=with_rival.tocsr()), 3, 0)
    assert found.fate == "kept"
    assert found.children[0].feature_ids.tolist() == [FIRST]
    alone = family(parent, own, replace(other, X=features(rng, own.labels, D, planted={SECOND: (0.0, 1.0)})), 3, 0)
    assert alone.fate == "lost"


def test_the_share_is_the_partial_r_squared_out_of_fold():
    rng = np.random.default_rng(0)
    labels, children, fold = balanced(rng, 200), rng.normal(size=(200, 2)), np.arange(200) % 4
    activation = 5.0 * labels + children @ [1.0, 2.0] + rng.normal(size=200)
    with_label, alone = np.c_[labels, children], labels[:, None]

    def error(X):
        seen = [LinearRegression().fit(X[fold != k], activation[fold != k]).predict(X[fold == k]) for k in range(4)]
        return sum(((activation[fold == k] - seen[k]) ** 2).sum() for k in range(4))

    share = rebuilt_share(activation, children, labels, fold)
    assert share == pytest.approx(1 - error(with_label) / error(alone))
    assert 0.75 < share < 0.9
    assert rebuilt_share(labels.astype(float), children, labels, fold) == -np.inf


def test_correlation_within_classes_is_that_of_what_the_label_leaves():
    rng = np.random.default_rng(0)
    labels, x = balanced(rng, 100), rng.random(100)
    Y = np.c_[labels + 0.0, labels + x, rng.random(100)] * (rng.random((100, 3)) < 0.7)
    left = [v - np.array([v[labels == label].mean() for label in labels]) for v in (x, *Y.T)]
    expected = [np.corrcoef(left[0], column)[0, 1] for column in left[1:]]
    np.testing.assert_allclose(within_classes(x, sparse.csr_array(Y), labels), expected)


def test_a_feature_that_is_not_there_is_lost():
    found = grown("none")
    assert (found.fate, found.needed) == ("lost", None)
    rows = on_b("none", found)
    assert all(row["delta_high"] < -0.1 for row in rows)
    assert TABLE.frame(rows)["needed"].isna().all()


def test_a_silent_sae_has_no_children_and_says_so():
    own, other = two_saes(0, "none")
    parent = sae_probes.sparse_1(own, np.array([PARENT]))[0]
    silent = Rows(sparse.csr_array(other.X.shape), other.labels, other.groups)
    found = family(parent, own, silent, 3, 0)
    assert (found.fate, found.children) == ("lost", [])
    (row,) = on_b("none", found)
    assert row["reason"] == "auc: no feature correlates with the parent"
    assert row["parent_auc"] > 0.8


def test_one_class_has_no_difference():
    found = grown("kept")
    own, other = two_saes(1, "kept")
    labels = np.ones_like(own.labels)
    test = evaluations.evaluation_of(labels, own.groups, "b", 0, evaluations.TransferParams(resamples=50))
    row = next(split_rows(found, own.X, other.X, test))
    assert np.isnan(row["delta"])
    assert row["label_recovered"] is None
    assert row["reason"] == "auc: one class; parent_auc: one class; delta: one class"


def test_features_are_matched_by_direction_and_by_activation():
    rng = np.random.default_rng(0)
    own, other = two_saes(2, "kept")
    decoder = rng.normal(size=(D, 30))
    near = rng.normal(size=(D, 30))
    near[SECOND] = decoder[PARENT] + 0.01 * rng.normal(size=30)
    ids = np.arange(D)
    a, b = (Directions(ids, array, array, "topk") for array in (decoder, near))
    (row,) = match_rows({PARENT: "alpha beta"}, own.X, other.X, a, b)
    assert (row["nearest"], row["partner"], row["same"]) == (SECOND, FIRST, False)
    assert row["cosine"] > 0.99
    assert row["correlation"] == pytest.approx(1)
    assert row["contained"] == 1
    assert feature_matches.TABLE.frame([row])["nearest"][0] == SECOND


def test_matches_of_silent_saes_have_a_reason():
    own, _ = two_saes(2, "none")
    rng = np.random.default_rng(0)
    decoder = rng.normal(size=(D, 30))
    a = Directions(np.arange(D), decoder, decoder, "topk")
    nothing = Directions(np.zeros(0, dtype=np.int64), np.zeros((0, 30)), np.zeros((0, 30)), "topk")
    silent = sparse.csr_array((240, D))
    (row,) = match_rows({PARENT: "alpha"}, own.X, silent, a, nothing)
    assert row["reason"] == "nearest: no feature fires"
    (row,) = match_rows({PARENT: "alpha"}, own.X, silent, a, a)
    assert row["reason"] == "partner: the activations do not vary"
    assert row["nearest"] == PARENT


def areas(rng, test, strengths):
    """By (A, B), the AUC of a probe of this strength."""
    found = {}
    for pair, strength in strengths.items():
        scores = strength * test.labels + rng.normal(size=len(test.labels))
        found[pair] = evaluations.bootstrapped_auc(scores, test)
    return found


class Known:
    """Of a study, what is known of its SAEs."""

    datasets = ("a", "b")

    def health(self, sae, dataset):
        width = 64 if sae.name == "narrow" else 128
        return {"a": Health(width, 10.0, 0.9, 0.1), "b": Health(width, 20.0, 0.8, 0.3)}[dataset]

    def directions(self, sae):
        return Directions(*[np.zeros(0)] * 3, "topk" if sae.name == "narrow" else "jumprelu")


def compared(areas, n_groups):
    """The table of one kind of probe, against the narrow SAE."""
    found = list(sae_comparison.comparison_rows(areas, "narrow", n_groups))
    about = [sae_comparison.health(Known(), sae_features(row["sae"], 3), row["test"]) for row in found]
    rows = zip(about, found, strict=True)
    return sae_comparison.TABLE.frame({"layer": 3, "probe": "sparse_1"} | known | row for known, row in rows)


def test_saes_are_compared_on_the_same_resamples():
    rng = np.random.default_rng(0)
    labels = balanced(rng, 200)
    test = evaluations.evaluation_of(labels, groups_of(200, 2), "b", 0, evaluations.TransferParams(resamples=200))
    pairs = [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    narrow = areas(rng, test, dict.fromkeys(pairs, 2.5))
    wide = areas(rng, test, {pair: 2.5 if pair[0] == pair[1] else 0.5 for pair in pairs})
    wide["a", "a"], wide["b", "b"] = narrow["a", "a"], narrow["b", "b"]
    made = compared({"wide": wide, "narrow": narrow}, {"a": 100, "b": 100})
    made = made.set_index(["sae", "domain", "test"])
    at_home, away = made.loc["wide", "in_domain", "mean"], made.loc["wide", "ood", "mean"]
    assert at_home["delta"] == at_home["delta_low"] == at_home["delta_high"] == 0
    assert away["delta_high"] < -0.1
    one, other = wide["a", "b"], narrow["a", "b"]
    expected = intervals.difference_interval(one.auc, other.auc, one.resampled, other.resampled, 100)
    row = made.loc["wide", "ood", "b"]
    assert (row["delta"], row["delta_low"], row["delta_high"]) == (expected.value, expected.low, expected.high)
    assert away["auc"] == pytest.approx(np.mean([wide["a", "b"].auc, wide["b", "a"].auc]))
    assert (away["n_pairs"], away["l0"], away["explained_variance"]) == (2, 15.0, pytest.approx(0.85))
    assert made.loc["wide", "ood", "b"]["l0"] == 20.0
    assert made.loc["narrow", "ood", "mean"]["reason"] == "delta: the reference itself"
    told = sae_comparison.section({"saes": made.reset_index()})
    assert told.claim.startswith("AUC of the best feature out of domain: wide differs from narrow by −0.")
    assert [row[0].text for row in told.tables[0].rows] == ["wide", "narrow"]


def test_one_dataset_or_few_groups_are_missing_with_their_reason():
    few = evaluations.BootstrappedAUC(0.9, np.full(20, 0.9))
    made = compared({"narrow": {("a", "a"): few}}, {"a": 4})
    inside, outside = made[made["domain"] == "in_domain"], made[made["domain"] == "ood"]
    assert (outside["reason"] == "auc: no other dataset").all()
    assert inside["auc_low"].isna().all()
    assert inside["reason"].str.contains("auc: 4 groups, fewer than 10").all()
    assert sae_comparison.section({"saes": made}).claim == "No layer has two SAEs to compare."
