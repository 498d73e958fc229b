"""A person's own arrays: what is taken, and what is refused in one line."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from planted import SHARED, sae_domain
from sae_transfer.core.errors import UserError
from sae_transfer.probing.kinds import fit_kinds
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.ranking import rank_features
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import ranked

DOMAIN = sae_domain(0, n=120, d=30, planted={SHARED: (0.1, 0.9)})
DENSE = DOMAIN.X.toarray()
LABELS = DOMAIN.labels


@pytest.mark.parametrize(
    "X",
    [
        DENSE,
        DENSE.tolist(),
        pd.DataFrame(DENSE),
        sparse.csc_matrix(DENSE),
        sparse.coo_array(DENSE),
        torch.from_numpy(DENSE),
        torch.from_numpy(DENSE).requires_grad_(),
        np.asfortranarray(DENSE),
    ],
    ids=lambda X: type(X).__name__,
)
def test_a_matrix_of_any_library_is_the_same_matrix(X):
    found = Rows.of(X, LABELS).X
    np.testing.assert_array_equal(found.toarray() if sparse.issparse(found) else found, DENSE)
    assert rank_features(X, LABELS, DOMAIN.groups)["feature"][0] == SHARED


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8, torch.bool])
def test_numbers_of_any_width_are_read(dtype):
    X = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    assert Rows.of(X, [0, 1]).X.tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    "y",
    [
        LABELS.tolist(),
        LABELS.astype(bool),
        LABELS.astype(float),
        2 * LABELS - 1,
        torch.from_numpy(LABELS),
        torch.from_numpy(LABELS) == 1,
        pd.Series(LABELS, dtype="boolean"),
        pd.Series(LABELS, dtype="Int64"),
        LABELS[:, None],
        LABELS.astype(object),
    ],
    ids=str,
)
def test_labels_of_any_kind_are_the_same_labels(y):
    assert (Rows.of(DENSE, y).labels == LABELS).all()


HOLE = np.where(np.arange(DENSE.size).reshape(DENSE.shape) == 64, np.nan, DENSE)  # row 2, column 4


@pytest.mark.parametrize(
    ("X", "y", "groups", "message"),
    [
        (HOLE, LABELS, None, "X has nan in row 2, column 4; leave that row out"),
        (sparse.csr_array(HOLE), LABELS, None, "X has nan in row 2, column 4"),
        (sparse.csr_array(np.where(np.isnan(HOLE), -np.inf, DENSE)), LABELS, None, "X has -inf in row 2, column 4"),
        (np.full((120, 2), np.inf), LABELS, None, "X has inf in row 0, column 0"),
        (DENSE[0], LABELS, None, r"X has the shape \(30,\); give \[rows, columns\]"),
        (DENSE[None], LABELS, None, r"X has the shape \(1, 120, 30\)"),
        (DENSE[:, :0], LABELS, None, r"X has the shape \(120, 0\)"),
        ([[1.0], [1.0, 2.0]], [0, 1], None, "X is no array .*; give rows of one length"),
        (DENSE.astype(str), LABELS, None, r"X holds str\d+ values; give numbers"),
        (DENSE * 1j, LABELS, None, "X holds complex128 values"),
        (torch.from_numpy(DENSE).to_sparse(), LABELS, None, "X is a sparse torch tensor; give a dense one"),
        (DENSE, LABELS[:-1], None, r"y has the shape \(119,\), and X has 120 rows"),
        (DENSE, LABELS[:, None] * [1, 1], None, r"y has the shape \(120, 2\)"),
        (DENSE, LABELS + 1, None, "y holds 1, 2; give labels of 0 and 1, of False and True, or of -1 and 1"),
        (DENSE, np.where(LABELS, "yes", "no"), None, "y holds 'no', 'yes'; give labels"),
        (DENSE, LABELS / 2, None, r"y holds 0\.0, 0\.5"),
        (DENSE, np.arange(120) % 3 - 1, None, "y holds -1, 0, 1"),
        (DENSE, np.where(np.arange(120) == 5, np.nan, LABELS), None, "y is missing in row 5"),
        (DENSE, np.ones(120, int), None, "y holds the label 1 alone; a probe needs rows of both"),
        (DENSE, LABELS, ["g"] * 7, r"groups has the shape \(7,\), and X has 120 rows"),
        (DENSE, LABELS, [None, *"g" * 119], "groups is missing in row 0"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(X, y, groups, message):
    with pytest.raises(UserError, match=message) as caught:
        Rows.of(X, y, groups)
    assert "\n" not in str(caught.value)


def test_the_ranking_is_the_one_of_the_stages():
    found = rank_features(DENSE, LABELS.astype(bool), DOMAIN.groups, n_folds=4, seed=3)
    expected = ranked(DOMAIN, 3, ProbeParams(n_folds=4))
    np.testing.assert_array_equal(found["feature"], expected.feature_ids)
    np.testing.assert_array_equal(found["cv_auc"], expected.auc)
    by_mean = rank_features(DENSE, LABELS, DOMAIN.groups, rule="mean_difference")
    expected = ranked(DOMAIN, 0, ProbeParams(), "mean_difference")
    np.testing.assert_array_equal(by_mean["feature"], expected.feature_ids)


def test_groups_keep_rows_together_in_the_folds():
    with pytest.raises(UserError, match="5 folds by group need 5 groups of each label, found 120 rows in 2 groups"):
        rank_features(DENSE, LABELS, LABELS)
    assert len(rank_features(DENSE, LABELS)) == ((DENSE > 0).sum(axis=0) >= 10).sum()  # each row a group of its own


def test_negative_columns_are_no_sae_features():
    with pytest.raises(
        UserError, match=r"the matrix of features has -1\.0 in row 3, column 2; SAE activations are never"
    ):
        rank_features(np.where(np.arange(3600).reshape(120, 30) == 92, -1.0, DENSE), LABELS)


def test_kinds_alone_are_those_among_all():
    with pytest.raises(UserError, match="probe 'sparse' is unknown; did you mean sparse_n or sparse_1"):
        fit_kinds(["sparse"], DOMAIN)
    with pytest.raises(UserError, match=r"the residual probe reads dense rows, and X is sparse; give X.toarray\(\)"):
        fit_kinds(["residual"], DOMAIN)
