"""A linear probe."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from sae_transfer.core.arrays import Floats, Ints, Matrix
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
    chose among `n_settings` pairs of C and size, `n_tied` of which lie within one standard error of the best.
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

    @property
    def n_features(self) -> int:
        """How many features it uses: 0 for a dense probe, the number of components for one on principal components."""
        return self.n_components if self.feature_ids is None and self.encoder is None else len(self.weights)

    @property
    def feature_text(self) -> str:
        """The ids of its features as tables hold them; empty for a dense probe."""
        return "" if self.feature_ids is None else " ".join(map(str, self.feature_ids))

    def score(self, X: Matrix) -> Floats:
        """[n] scores of X [n, d]; they rise with answerability."""
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
