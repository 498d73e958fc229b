"""The search over single features on a person's own arrays, as the 1-sparse probe runs it."""

from typing import Any

import pandas as pd

from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import ranked
from sae_transfer.probing.search import Rule


def rank_features(
    X: Any, y: Any, groups: Any = None, *, n_folds: int = 5, seed: int = 0, rule: Rule = "auc"
) -> pd.DataFrame:
    """Every SAE feature alone: how well a logistic regression on it tells the labels apart, out of fold.

    Args:
        X: [n, d_sae] activations, never negative; dense or sparse, of NumPy, SciPy, pandas or torch.
        y: [n], labels of 0 and 1, of False and True, or of -1 and 1.
        groups: [n], the group of each row, which no fold tears apart; by default each row is a group of its own.
        n_folds: of the cross-validation, stratified and by group.
        seed: of the folds.
        rule: `auc` orders by out-of-fold AUC (arXiv 2502.19964), `mean_difference` as sae-probes does.

    Returns:
        One row for each feature that fires on at least 10 rows, best first: `feature`, `cv_auc` and `log_loss` (means
        over the held-out folds), and `density`, the share of rows on which it fires.

    Raises:
        UserError: as `Rows.of`; a negative activation; fewer groups of a label than folds.

    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 200)
    >>> X = np.maximum(rng.normal(size=(200, 50)), 0)
    >>> X[:, 7] += y
    >>> rank_features(X, y).head(2).round(2)
       feature  cv_auc  log_loss  density
    0        7    0.88      0.45     0.78
    1       21    0.62      0.67     0.55
    """
    found = ranked(Rows.of(X, y, groups), seed, ProbeParams(n_folds=n_folds), rule)
    return pd.DataFrame(
        {"feature": found.feature_ids, "cv_auc": found.auc, "log_loss": found.log_loss, "density": found.density}
    )
