import numpy as np
import pytest
from scipy import sparse, stats

from sae_transfer.stats.distances import distances


@pytest.mark.parametrize("decimals", [0, 1, 9])  # few decimals: many ties
def test_distances_equal_scipys_column_by_column(decimals):
    rng = np.random.default_rng(0)
    a = np.round((rng.random((50, 9)) < np.linspace(0, 1, 9)) * rng.gamma(2.0, 1.0, (50, 9)), decimals)
    b = np.round((rng.random((37, 9)) < np.linspace(1, 0, 9)) * rng.gamma(3.0, 1.0, (37, 9)), decimals)
    found = distances(sparse.csr_array(a), sparse.csr_array(b))
    for i in range(9):
        assert found.wasserstein[i] == pytest.approx(stats.wasserstein_distance(a[:, i], b[:, i]), abs=1e-12)
        assert found.ks[i] == pytest.approx(stats.ks_2samp(a[:, i], b[:, i]).statistic, abs=1e-12)


def test_the_same_rows_in_another_order_are_no_distance_apart():
    X = sparse.random_array((40, 5), density=0.4, rng=np.random.default_rng(0), format="csr")
    found = distances(X, sparse.csr_array(X[np.random.default_rng(1).permutation(40)]))
    np.testing.assert_allclose(found.wasserstein, 0, atol=1e-12)
    np.testing.assert_allclose(found.ks, 0, atol=1e-12)


def test_columns_that_are_silent_on_both_sides_are_no_distance_apart():
    found = distances(sparse.csr_array((3, 2)), sparse.csr_array((4, 2)))
    assert (found.wasserstein == 0).all()
    assert (found.ks == 0).all()


def test_a_constant_against_silence_is_its_value_apart():
    found = distances(sparse.csr_array(np.full((4, 1), 2.5)), sparse.csr_array((7, 1)))
    assert (found.wasserstein[0], found.ks[0]) == (2.5, 1.0)
