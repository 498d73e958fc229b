from dataclasses import replace

import numpy as np
import pytest

from planted import balanced, groups_of
from sae_transfer.analyses import length
from sae_transfer.probing import evaluations
from sae_transfer.probing.evaluations import TransferParams
from sae_transfer.stats.roc import auc, weighted_auc


def sample(seed, n=400, confound=0.0, signal=0.0):
    """(test rows, lengths, scores): answerable prompts are longer by `confound` sd, scores read length and label."""
    rng = np.random.default_rng(seed)
    labels = balanced(rng, n)
    lengths = np.round(100 + 15 * (rng.normal(size=n) + confound * labels))
    scores = (lengths - 100) / 15 + signal * labels + 0.3 * rng.normal(size=n)
    return evaluations.evaluation_of(labels, groups_of(n, 2), "b", 0, TransferParams(resamples=200)), lengths, scores


def test_comparing_within_strata_removes_most_of_a_planted_length_confound():
    test, lengths, scores = sample(0, confound=1.0)
    found = length.stratified(scores, length.length_strata(lengths), test)
    assert found["auc"] > 0.7
    fine = length.stratified(scores, length.length_strata(lengths, 20), test)
    assert abs(fine["stratified_auc"] - 0.5) < 0.08
    assert abs(found["stratified_auc"] - 0.5) < abs(found["auc"] - 0.5) * 0.65
    assert found["strata"] == 3


def test_a_signal_beside_length_stays():
    test, lengths, scores = sample(1, signal=2.0)
    found = length.stratified(scores, length.length_strata(lengths), test)
    assert found["stratified_auc"] > found["auc"] - 0.02
    assert found["stratified_auc_low"] < found["stratified_auc"] < found["stratified_auc_high"]
    assert found["pairs"] == pytest.approx(1 / 3, abs=0.04)


def test_a_stratified_area_is_the_share_of_pairs_within_strata():
    rng = np.random.default_rng(0)
    labels, strata, scores = rng.integers(0, 2, 60), rng.integers(0, 3, 60), rng.integers(0, 9, 60)
    wins = pairs = 0.0
    for s in range(3):
        part = strata == s
        n = (labels[part] == 1).sum() * (labels[part] == 0).sum()
        wins, pairs = wins + n * auc(scores[part], labels[part]), pairs + n
    found = weighted_auc(scores, labels, np.ones((1, 60)), strata)
    assert found[0] == pytest.approx(wins / pairs)
    weights = rng.integers(0, 3, (4, 60)).astype(float)
    for w, value in zip(weights, weighted_auc(scores, labels, weights, strata), strict=True):
        rows = np.repeat(np.arange(60), w.astype(int))
        again = weighted_auc(scores[rows], labels[rows], np.ones((1, len(rows))), strata[rows])[0]
        assert value == pytest.approx(again)
    np.testing.assert_allclose(
        weighted_auc(scores, labels, weights, np.zeros(60)), weighted_auc(scores, labels, weights)
    )


def test_strata_are_terciles_that_keep_equal_lengths_together():
    np.testing.assert_array_equal(length.length_strata(np.arange(9)), np.repeat([0, 1, 2], 3))
    assert length.length_strata([7, 7, 7, 7]).tolist() == [0] * 4
    found = length.length_strata([1, 5, 5, 5, 5, 9])
    assert len(set(found[1:5])) == 1
    assert found[0] <= found[1] < found[5]


def test_strata_of_one_class_have_no_area_but_a_reason():
    test, _, scores = sample(0)
    found = length.stratified(scores, np.asarray(test.labels), test)
    assert np.isnan([found[f"stratified_auc{end}"] for end in ("", "_low", "_high")]).all()
    assert found["reason"] == "stratified_auc: every stratum has one class"
    assert (found["strata"], found["pairs"]) == (0, 0)
    alone = replace(test, labels=np.ones_like(test.labels))
    found = length.stratified(scores, np.zeros(400, dtype=int), alone)
    assert found["reason"] == "auc: one class; stratified_auc: one class"
