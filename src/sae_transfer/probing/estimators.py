"""The probes as classifiers of scikit-learn. They train by the functions that the stage `fit` calls.

`tests/probing/test_estimators.py` holds that scikit-learn's own `check_estimator` passes, and that the numbers are
those of `fit` on the same rows.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from sae_transfer.core.arrays import Floats
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import parse
from sae_transfer.probing.kinds import METHODS, fit_kinds, selected
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows


class _ProbeClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What the three have in common. A subclass has `seed` and `n_folds`, and says which probe it trains, and how."""

    _kind: str
    _sparse = False  # whether it reads features, which may be sparse and are never negative
    seed: int
    n_folds: int

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Trains the probe.

        Args:
            X: [n, d].
            y: [n], two classes; the second in sorted order is the positive one.
            groups: [n], the group of each row, which no fold tears apart; by default each row is a group of its own.

        Raises:
            ValueError: NaN or infinity, one class or more than two, or too few groups for the folds.
        """
        X, y = validate_data(self, X, y, accept_sparse="csr" if self._sparse else False, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        if (found := type_of_target(y)) != "binary":
            raise ValueError(f"Only binary classification is supported. The type of the target is {found}.")
        if self._sparse:
            check_non_negative(X, type(self).__name__)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"one class alone ({self.classes_[0]!r}) in y; a probe needs rows of both classes")
        try:
            self.probe_ = self._trained(Rows.of(X, labels, groups))
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    def _trained(self, train: Rows) -> Probe:
        """The stage's probe. Where a class lies in few groups there are fewer folds, or none to judge it by."""
        least = min(len(np.unique(train.groups[train.labels == label])) for label in (0, 1))
        chosen = {"n_folds": _folds(least, self.n_folds, 2)} | self._params()
        if chosen["n_folds"]:
            return selected(fit_kinds([self._kind], train, self.seed, self._parsed(chosen)), self._kind)
        chosen["n_folds"] = _folds(least, self.n_folds, 1) or 2
        return selected(METHODS[self._kind](train, self.seed, self._parsed(chosen)), self._kind)

    def _parsed(self, chosen: dict[str, Any]) -> ProbeParams:
        return parse(ProbeParams, chosen, type(self).__name__)

    def decision_function(self, X: Any) -> Floats:
        """[n] logits of the second class."""
        check_is_fitted(self)
        X = validate_data(
            self, X, accept_sparse="csr" if self._sparse else False, dtype=(np.float64, np.float32), reset=False
        )
        return self.probe_.decision_function(X)

    def predict_proba(self, X: Any) -> Floats:
        """[n, 2] probabilities of the two classes, in the order of `classes_`."""
        p = expit(self.decision_function(X))
        return np.column_stack([1 - p, p])

    def predict(self, X: Any) -> NDArray[Any]:
        """[n] classes: the second where its probability is at least one half."""
        second = self.decision_function(X) >= 0
        found: NDArray[Any] = self.classes_[second.astype(int)]
        return found

    def _params(self) -> dict[str, Any]:
        """What of section `probe` of the params was chosen."""
        return {}

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.sparse = self._sparse
        tags.input_tags.positive_only = self._sparse
        return tags


def _folds(n_groups: int, most: int, levels: int) -> int:
    """The most folds, at most so many, that can be dealt again in the rest that a fold leaves, level by level; or 0."""

    def fit(k: int) -> bool:
        left = n_groups
        for _ in range(levels):
            left -= -(-left // k)
        return left >= k

    return next((k for k in range(most, 1, -1) if fit(k)), 0)


class ResidualProbe(_ProbeClassifier):
    """The residual stream probe: L2 logistic regression on standardised columns, C by cross-validation.

    Args:
        C_grid: the inverse strengths of the penalty to choose from.
        n_folds: of the cross-validation, stratified and by group; fewer where a class lies in fewer groups.
        seed: of the folds.

    Attributes:
        probe_: the trained `Probe`, with its weights, its C and its cv_auc.

    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> probe = ResidualProbe(C_grid=(0.1, 1.0)).fit(X, X[:, 0] > 0)
    >>> probe.score(X, X[:, 0] > 0) > 0.9
    True
    """

    _kind = "residual"

    def __init__(
        self, *, C_grid: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0), n_folds: int = 5, seed: int = 0
    ) -> None:
        self.C_grid = C_grid
        self.n_folds = n_folds
        self.seed = seed

    def _params(self) -> dict[str, Any]:
        return {"C_grid": tuple(self.C_grid)}


class MeanDifferenceProbe(_ProbeClassifier):
    """The direction from one class's mean to the other's, with a probability from out-of-fold scores.

    Args:
        n_folds: of the cross-validation, stratified and by group; fewer where a class lies in fewer groups.
        seed: of the folds.

    Attributes:
        probe_: the trained `Probe`.
    """

    _kind = "mean_difference"

    def __init__(self, *, n_folds: int = 5, seed: int = 0) -> None:
        self.n_folds = n_folds
        self.seed = seed


class SparseProbe(_ProbeClassifier):
    """Logistic regression on the best SAE features, which are chosen by cross-validation on the training rows.

    Args:
        n_features: 1 for the 1-sparse probe, N for the N-sparse one; None chooses N from a grid by cross-validation.
        C_grid: the inverse strengths of the penalty to choose from (N-sparse).
        ranking: the rule that ranks features, `auc` or `mean_difference`.
        scaling: what features go through before the penalty, `rms`, `standard` or `none` (N-sparse).
        n_folds: of the cross-validation, stratified and by group; fewer where a class lies in fewer groups.
        seed: of the folds.

    Attributes:
        probe_: the trained `Probe`; its `feature_ids` are the chosen features, best first.

    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 80)
    >>> X = rng.gamma(1.0, size=(80, 6)) * (rng.random((80, 6)) < 0.5)
    >>> X[:, 4] += y
    >>> SparseProbe().fit(X, y).probe_.feature_ids
    array([4])
    """

    _sparse = True

    def __init__(
        self,
        n_features: int | None = 1,
        *,
        C_grid: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0),
        ranking: str = "auc",
        scaling: str = "rms",
        n_folds: int = 5,
        seed: int = 0,
    ) -> None:
        self.n_features = n_features
        self.C_grid = C_grid
        self.ranking = ranking
        self.scaling = scaling
        self.n_folds = n_folds
        self.seed = seed

    @property
    def _kind(self) -> str:  # type: ignore[override]  # here the params decide
        return "sparse_1" if self.n_features == 1 else "sparse_n"

    def _params(self) -> dict[str, Any]:
        chosen = {"ranking": self.ranking, "scaling": self.scaling, "top_k": 1}
        if self.n_features == 1:  # no grid decides anything of the 1-sparse probe
            return chosen | {"C_grid": (1.0,), "N": (1,)}
        sizes = {} if self.n_features is None else {"N": (int(self.n_features),)}
        return chosen | sizes | {"C_grid": tuple(self.C_grid)}
