"""Against correlations computed directly, and truths that were planted."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from sae_transfer.stats import cosines
from sae_transfer.stats.cosines import cosine, mahalanobis_cosine


def directions(rng, n, d=12):
    return rng.normal(size=(n, d))


def test_cosine_is_scikit_learns():
    rng = np.random.default_rng(0)
    a, b = directions(rng, 4), directions(rng, 7)
    np.testing.assert_allclose(cosine(a, b), cosine_similarity(a, b))
    np.testing.assert_allclose(np.diag(cosine(a, 3 * a)), 1)


def test_mahalanobis_cosine_is_the_correlation_of_the_scores():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12)) + 5
    a, b = directions(rng, 3), directions(rng, 4)
    expected = np.corrcoef(np.c_[X @ a.T, X @ b.T].T)[:3, 3:]
    np.testing.assert_allclose(mahalanobis_cosine(a, b, np.cov(X.T)), expected)


def test_under_a_round_covariance_the_two_cosines_agree():
    rng = np.random.default_rng(2)
    a, b = directions(rng, 3), directions(rng, 4)
    np.testing.assert_allclose(mahalanobis_cosine(a, b, 2 * np.eye(12)), cosine(a, b))


@pytest.mark.parametrize("measure", [cosine, lambda a, b: mahalanobis_cosine(a, b, np.eye(12))])
def test_a_direction_of_length_zero_is_like_nothing(measure):
    a = np.zeros((1, 12))
    assert np.isnan(measure(a, directions(np.random.default_rng(0), 2))).all()
    assert measure(np.zeros((0, 12)), a).shape == (0, 1)


def test_constant_activations_have_no_mahalanobis_cosine():
    a = directions(np.random.default_rng(0), 2)
    assert np.isnan(mahalanobis_cosine(a, a, np.zeros((12, 12)))).all()


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    a, b, S = directions(rng, 9), directions(rng, 4), np.cov(rng.normal(size=(50, 12)).T)
    whole = cosine(a, b), mahalanobis_cosine(a, b, S)
    monkeypatch.setattr(cosines, "CHUNK", 2)
    np.testing.assert_allclose(cosine(a, b), whole[0])
    np.testing.assert_allclose(mahalanobis_cosine(a, b, S), whole[1])
