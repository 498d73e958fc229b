"""Planted features that split, stay or vanish; the table of SAEs against each other."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from planted import QUICK, balanced, features, groups_of
from sae_transfer import metrics, probes, sae_comparison, transfer
from sae_transfer.features import Directions, Health
from sae_transfer.probes import Training
from sae_transfer.splitting import MATCHES, SPLITTING, answer, correlations, family, match_rows, split_rows, table

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
    return [Training(sparse.csr_array(X), labels, groups) for X in (own, other)]


def grown(kind):
    own, other = two_saes(0, kind)
    parent = probes.sparse_1(own, probes.ranked(own, 0, QUICK).feature_ids[:1])[0]
    assert parent.feature_ids == [PARENT]
    return family(parent, own, other, 3, 0)


def on_b(kind, found):
    own, other = two_saes(1, kind)
    test = transfer.test_set(own.labels, own.groups, "b", 0, transfer.TransferParams(resamples=300))
    return list(split_rows(found, own.X, other.X, test))


def test_a_planted_split_is_recognised_with_exactly_its_two_children():
    found = grown("split")
    assert found.fate == "split"
    assert found.needed == 2
    assert set(found.children[1].feature_ids) == {FIRST, SECOND}
    one, two, *_ = on_b("split", found)
    assert one["delta_high"] < -0.1
    assert not one["recovered"]
    assert two["delta"] == pytest.approx(0, abs=0.01)
    assert two["recovered"]
    assert two["delta_low"] <= two["delta"] <= two["delta_high"]
    assert two["child_ids"] in (f"{FIRST} {SECOND}", f"{SECOND} {FIRST}")
    made = table([row | {"sae": "n", "other": "w", "train": "a", "in_domain": False} for row in (one, two)], SPLITTING)
    assert list(made.columns) == SPLITTING
    said = answer(made)[0]
    assert said.startswith("n in w: best features split 1; out of domain one child changes AUC by -0.")
    assert "what is needed changes AUC by +0.00" in said.replace("-0.00", "+0.00")


def test_a_feature_that_stays_needs_one_child_and_loses_nothing():
    found = grown("kept")
    assert (found.fate, found.needed) == ("kept", 1)
    first = on_b("kept", found)[0]
    assert first["child_ids"] == str(FIRST)
    assert first["delta"] == first["delta_low"] == first["delta_high"] == 0


def test_a_feature_that_is_not_there_is_lost():
    found = grown("none")
    assert (found.fate, found.needed) == ("lost", None)
    rows = on_b("none", found)
    assert all(row["delta_high"] < -0.1 for row in rows)
    assert table(rows, SPLITTING)["needed"].isna().all()


def test_a_silent_sae_has_no_children_and_says_so():
    own, other = two_saes(0, "none")
    parent = probes.sparse_1(own, np.array([PARENT]))[0]
    silent = Training(sparse.csr_array(other.X.shape), other.labels, other.groups)
    found = family(parent, own, silent, 3, 0)
    assert (found.fate, found.children) == ("lost", [])
    (row,) = on_b("none", found)
    assert row["reason"] == "auc: no feature correlates with the parent"
    assert row["parent_auc"] > 0.8


def test_one_class_has_no_difference():
    found = grown("kept")
    own, other = two_saes(1, "kept")
    labels = np.ones_like(own.labels)
    test = transfer.test_set(labels, own.groups, "b", 0, transfer.TransferParams(resamples=50))
    row = next(split_rows(found, own.X, other.X, test))
    assert np.isnan(row["delta"])
    assert row["recovered"] is None
    assert row["reason"] == "auc: one class; parent_auc: one class; delta: one class"


def test_correlations_are_numpys():
    rng = np.random.default_rng(0)
    X, Y = (sparse.random_array((50, m), density=0.3, rng=rng, format="csr") for m in (4, 6))
    Y = sparse.csr_array(sparse.hstack([Y, np.zeros((50, 1)), np.full((50, 1), 3.0)]))
    expected = np.corrcoef(np.c_[X.toarray(), Y.toarray()[:, :6]].T)[:4, 4:]
    found = correlations(X, Y)
    np.testing.assert_allclose(found[:, :6], expected)
    assert np.isnan(found[:, 6:]).all()


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
    made = table([row], MATCHES)
    assert list(made.columns) == MATCHES
    assert made["nearest"][0] == SECOND


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


def test_one_sae_on_a_layer_gives_empty_tables_with_their_headers():
    for columns in (SPLITTING, MATCHES):
        empty = table([], columns)
        assert list(empty.columns) == columns
        assert len(empty) == 0
    assert answer(table([], SPLITTING)) == ["Feature splitting needs two SAEs on one layer."]


def areas(rng, test, strengths):
    """References of probes of these strengths: (A, B) -> Reference."""
    found = {}
    for pair, strength in strengths.items():
        scores = strength * test.labels + rng.normal(size=len(test.labels))
        found[pair] = transfer.reference(scores, test)
    return found


HEALTH = {"a": Health(64, 10.0, 0.9, 0.1), "b": Health(64, 20.0, 0.8, 0.3)}
FACTS = {
    "wide": {"width": 128, "objective": "jumprelu", "health": HEALTH},
    "narrow": {"width": 64, "objective": "topk", "health": HEALTH},
}


def test_saes_are_compared_on_the_same_resamples():
    rng = np.random.default_rng(0)
    labels = balanced(rng, 200)
    test = transfer.test_set(labels, groups_of(200, 2), "b", 0, transfer.TransferParams(resamples=200))
    pairs = [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    narrow = areas(rng, test, dict.fromkeys(pairs, 2.5))
    wide = areas(rng, test, {pair: 2.5 if pair[0] == pair[1] else 0.5 for pair in pairs})
    wide["a", "a"], wide["b", "b"] = narrow["a", "a"], narrow["b", "b"]
    rows = sae_comparison.comparison_rows({"wide": wide, "narrow": narrow}, FACTS, {"a": 100, "b": 100})
    made = sae_comparison.table([row | {"layer": 3, "probe": "sparse_1"} for row in rows])
    assert list(made.columns) == sae_comparison.COLUMNS
    assert set(made["reference"]) == {"narrow"}
    made = made.set_index(["sae", "domain", "test"])
    at_home, away = made.loc["wide", "in_domain", "mean"], made.loc["wide", "ood", "mean"]
    assert at_home["delta"] == at_home["delta_low"] == at_home["delta_high"] == 0
    assert away["delta_high"] < -0.1
    one, other = wide["a", "b"], narrow["a", "b"]
    expected = metrics.difference_interval(one.auc, other.auc, one.resampled, other.resampled, 100)
    row = made.loc["wide", "ood", "b"]
    assert (row["delta"], row["delta_low"], row["delta_high"]) == (expected.value, expected.low, expected.high)
    assert away["auc"] == pytest.approx(np.mean([wide["a", "b"].auc, wide["b", "a"].auc]))
    assert (away["n_pairs"], away["l0"], away["explained_variance"]) == (2, 15.0, pytest.approx(0.85))
    assert made.loc["wide", "ood", "b"]["l0"] == 20.0
    assert made.loc["narrow", "ood", "mean"]["reason"] == "delta: the reference itself"
    (said,) = sae_comparison.answer(made.reset_index())
    assert said.startswith("Layer 3, sparse_1, mean AUC out of domain: narrow (64 wide, topk, L0 15, explained")
    assert said.endswith("from narrow.")


def test_one_dataset_or_few_groups_are_missing_with_their_reason():
    few = transfer.Reference(0.9, np.full(20, 0.9))
    alone = {"narrow": {("a", "a"): few}}
    rows = sae_comparison.comparison_rows(alone, FACTS, {"a": 4})
    made = sae_comparison.table([row | {"layer": 3, "probe": "sparse_1"} for row in rows])
    inside, outside = made[made["domain"] == "in_domain"], made[made["domain"] == "ood"]
    assert (outside["reason"] == "auc: no other dataset").all()
    assert inside["auc_low"].isna().all()
    assert inside["reason"].str.contains("auc: 4 groups, fewer than 10").all()
    assert sae_comparison.answer(made) == ["Transfer of SAEs needs two datasets."]
    assert sae_comparison.answer(pd.DataFrame(made.iloc[:0])) == ["Transfer of SAEs needs two datasets."]
