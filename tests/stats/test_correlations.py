import numpy as np
import pytest
from scipy import sparse

from sae_transfer.stats.correlations import correlations


@pytest.fixture
def columns():
    """Six sparse columns, a silent one and a constant one; and what numpy says of the first six with four others."""
    rng = np.random.default_rng(0)
    X, Y = (sparse.random_array((50, m), density=0.3, rng=rng, format="csr") for m in (4, 6))
    expected = np.corrcoef(np.c_[X.toarray(), Y.toarray()].T)[:4, 4:]
    return X, sparse.csr_array(sparse.hstack([Y, np.zeros((50, 1)), np.full((50, 1), 3.0)])), expected


@pytest.mark.parametrize("form", [sparse.csr_array, sparse.csr_array.toarray])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_correlations_are_numpys(columns, form, shift):
    X, Y, expected = columns
    dense = X.toarray() + shift  # scores with a large bias lose no digits
    for found in (correlations(form(X), Y), correlations(dense, form(Y)), correlations(form(Y), dense).T):
        np.testing.assert_allclose(found[:, :6], expected)
        assert np.isnan(found[:, 6:]).all()


def test_a_constant_score_correlates_with_nothing(columns):
    assert np.isnan(correlations(np.full((50, 1), 0.1), columns[1])).all()
