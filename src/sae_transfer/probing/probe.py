"""A linear probe."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from sae_transfer.core.arrays import Floats, Ints, Matrix
from sae_transfer.core.errors import UserError
from sae_transfer.probing import own_arrays
from sae_transfer.probing.rows import Rows


@dataclass(frozen=True)
class Probe:
    """A linear probe: score = X[:, feature_ids] @ weights + bias.

    The probability of label 1 is sigmoid(platt_slope * score + platt_bias); they are 1 and 0 where the score is a logit
    already. `feature_ids` is None for a probe on every column. Scaling is folded into the weights.

    `rank` is the place of a 1-sparse probe's feature on A, `repeat` counts
    the repeats of a control, `selected` marks the rank or N that the training data chose. `cv_auc` is the mean
    out-of-fold AUC on A of the whole procedure behind this probe, NaN where it was not run. `input` names the matrix
    that X is: the space's own rows, the residual stream, an SAE's reconstruction of it, or what a text probe reads. A
    probe with an `encoder` [d_model + 1, k], whose last row is the bias, scores relu(X @ encoder[:-1] + encoder[-1])
    instead of X: the features of a random SAE. `n_components` counts the components of a probe on
    principal components. `oof_logits` [n_train] are the logits of A's training rows out of fold, under the probes of
    this kind that the other folds selected; None where no fold trained it. `feature_cv_auc` is the mean out-of-fold AUC
    of a 1-sparse probe's feature alone, whatever feature the folds would have chosen. `selection` is the rule that
    chose among `n_settings` pairs of C and size, `n_tied` of which lie within one standard error of the best. `width`
    is the number of columns that the features were chosen from, 0 where it is not known; a dense probe has a weight for
    each.

    Like a fitted classifier of scikit-learn it has `decision_function`, `predict_proba` and `predict`; its `score` is
    the score of each row, not an accuracy.

    >>> probe = Probe("sparse_1", "sparse_1", np.array([2.0]), -1.0, np.array([1]), width=3)
    >>> probe.predict([[0.0, 0.9, 5.0], [7.0, 0.0, 0.0]])
    array([1, 0])
    >>> probe.predict_proba([[0.0, 0.5, 0.0]])
    array([[0.5, 0.5]])
    >>> probe.predict([[0.9]])
    Traceback (most recent call last):
    sae_transfer.core.errors.UserError: X has 1 columns, and the sparse_1 probe was trained on 3; ...
    """

    kind: str
    family: Literal["residual", "sparse_1", "sparse_n", "tfidf", "length", "overlap", "verbal"]
    weights: Floats
    bias: float
    feature_ids: Ints | None = None
    C: float = np.nan
    rank: int = 0
    repeat: int = 0
    selected: bool = True
    scaling: str = "none"
    ranking: str = ""
    platt_slope: float = 1.0
    platt_bias: float = 0.0
    cv_auc: float = np.nan
    n_train: int = 0
    input: str = "space"
    n_components: int = 0
    encoder: NDArray[np.float32] | None = None
    oof_logits: Floats | None = None
    feature_cv_auc: float = np.nan
    selection: str = ""
    n_settings: int = 0
    n_tied: int = 0
    width: int = 0

    @property
    def n_features(self) -> int:
        """How many features it uses: 0 for a dense probe, the number of components for one on principal components."""
        return self.n_components if self.feature_ids is None and self.encoder is None else len(self.weights)

    @property
    def feature_text(self) -> str:
        """The ids of its features as tables hold them; empty for a dense probe."""
        return "" if self.feature_ids is None else " ".join(map(str, self.feature_ids))

    @property
    def n_features_in_(self) -> int:
        """The number of columns that it scores, 0 where it is not known."""
        if self.encoder is not None:
            return len(self.encoder) - 1
        return len(self.weights) if self.feature_ids is None else self.width

    @property
    def classes_(self) -> Ints:
        """Unanswerable and answerable, in the order of `predict_proba`."""
        return np.array([0, 1])

    def decision_function(self, X: Any) -> Floats:
        """[n] logits of "answerable" of a person's own X [n, d]. Raises as `Rows.of`, and as `score`."""
        return self.logits(self.score(own_arrays.matrix(X)))

    def predict_proba(self, X: Any) -> Floats:
        """[n, 2] probabilities of "unanswerable" and "answerable". Raises as `decision_function`."""
        p = expit(self.decision_function(X))
        return np.column_stack([1 - p, p])

    def predict(self, X: Any) -> Ints:
        """[n] labels: 1 where the probability of "answerable" is at least 0.5. Raises as `decision_function`."""
        return np.asarray(self.decision_function(X) >= 0, dtype=np.int64)

    def score(self, X: Matrix) -> Floats:
        """[n] scores of X [n, d]; they rise with answerability.

        Raises:
            UserError: X has another number of columns than the matrix that the probe was trained on.
        """
        if self.n_features_in_ not in (0, X.shape[1]):
            raise UserError(
                f"X has {X.shape[1]} columns, and the {self.kind} probe was trained on {self.n_features_in_}; "
                "give the rows of the probe's own space"
            )
        if self.encoder is not None:
            X = np.maximum(np.asarray(X, dtype=np.float64) @ self.encoder[:-1] + self.encoder[-1], 0.0)
        columns = X if self.feature_ids is None else X[:, self.feature_ids]
        return np.asarray(columns @ self.weights, dtype=np.float64) + self.bias

    def logits(self, scores: Floats) -> Floats:
        """[n] logits of "answerable" for this probe's scores."""
        return self.platt_slope * scores + self.platt_bias

    def probability(self, scores: Floats) -> Floats:
        """[n] probabilities of "answerable" for this probe's scores."""
        result: Floats = expit(self.logits(scores))
        return result


Method = Callable[[Rows, int], list[Probe]]


def decision_function(X: Matrix, fit: tuple[Floats, float]) -> Floats:
    """[n] scores of X under the (weights, bias) of a fit."""
    weights, bias = fit
    return np.asarray(X @ weights, dtype=np.float64) + bias
