"""Cross-validation: how C and the size of a probe are chosen, and how a whole method is judged.

Everything that a method learns is learnt anew in every fold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sae_transfer.core.arrays import Floats
from sae_transfer.probing.probe import Method, Probe, decision_function
from sae_transfer.probing.probe_params import ProbeParams, SelectionRule
from sae_transfer.probing.rows import Rows
from sae_transfer.stats.logistic import Scaling, fit_path, log_loss
from sae_transfer.stats.roc import auc

DIGITS: dict[SelectionRule, int] = {"log_loss": 9, "auc": 12}  # coarser than what the order of a sum's terms changes


@dataclass(frozen=True)
class PathScores:
    """Scores of logistic regressions on the first columns on a held-out fold: both [n_sizes, n_Cs]."""

    auc: Floats
    log_loss: Floats


def score_path(rest: Rows, test: Rows, sizes: Sequence[int], Cs: Sequence[float], scaling: Scaling) -> PathScores:
    """Logistic regressions on the first columns of `rest`, for every size and C, scored on `test`."""
    paths = [fit_path(rest.X[:, :size], rest.labels, Cs, scaling) for size in sizes]
    logits = [
        [decision_function(test.X[:, :size], fit) for fit in path] for size, path in zip(sizes, paths, strict=True)
    ]
    return score_logits(logits, test)


def score_logits(logits: Sequence[Sequence[Floats]], test: Rows) -> PathScores:
    """The logits [n_sizes][n_Cs] of the rows [n] of a fold, scored."""
    areas = [[auc(of, test.labels) for of in path] for path in logits]
    losses = [[log_loss(of, test.labels) for of in path] for path in logits]
    return PathScores(np.array(areas), np.array(losses))


@dataclass(frozen=True)
class Choice:
    """What a rule chose: the place of the best size, and the best C of each size.

    `n_tied` of all `n_settings` pairs of a size and a C lie within one standard error of the best, itself included.
    """

    rule: SelectionRule
    size: int
    Cs: list[float]
    n_settings: int
    n_tied: int

    @property
    def C(self) -> float:
        """The C of the chosen size."""
        return self.Cs[self.size]

    @property
    def about(self) -> dict[str, Any]:
        """How it was chosen, as fields of a probe."""
        return {"selection": self.rule, "n_settings": self.n_settings, "n_tied": self.n_tied}


def choose(folds: Sequence[PathScores], Cs: Sequence[float], rule: SelectionRule) -> Choice:
    """What is best on average over the folds; equals go to the smaller size, then to the smaller C.

    AUC ties on easy data, where the smallest of many equal settings is an accident. Log loss tells them apart, and
    asks for probabilities that mean something (Hastie, Tibshirani, Friedman, The Elements of Statistical Learning,
    2009, section 7.10, also for the one-standard-error rule by which `n_tied` counts).

    Args:
        folds: of each fold; sizes and Cs ascending.
        Cs: ascending.
        rule: `log_loss` takes the lowest mean out-of-fold log loss, `auc` the highest mean out-of-fold AUC.
    """
    gains = np.stack([fold.auc if rule == "auc" else -fold.log_loss for fold in folds])
    means: Floats = np.round(gains.mean(axis=0), DIGITS[rule])
    size = int(np.argmax(means.max(axis=1)))
    best = size, int(means[size].argmax())
    error = gains[:, *best].std(ddof=1) / np.sqrt(len(folds))
    n_tied = int((means >= means[best] - error).sum())
    return Choice(rule, size, [Cs[c] for c in means.argmax(axis=1)], means.size, n_tied)


Key = tuple[str, str, int, int]


def cross_validate(method: Method, train: Rows, seed: int, params: ProbeParams) -> list[Probe]:
    """The method's probes trained on all of `train`, with the cv_auc and the out-of-fold logits of the whole method.

    The selected ones have calibrated probabilities (`unshrunk`).

    The whole method runs again on the other folds of each fold. A probe for a given rank or N is judged by the
    probes of that rank or N; the selected one by those that the folds selected, whatever their rank or N.
    """
    areas: dict[Key, list[float]] = {}
    logits: dict[str, Floats] = {}
    fold = train.folds(params.n_folds, seed)
    for held_out in range(params.n_folds):
        test = train.take(fold == held_out)
        for probe in method(train.take(fold != held_out), seed):
            scores = probe.score(test.X)
            for key in {_key(probe, selected=False), _key(probe, selected=probe.selected)}:
                areas.setdefault(key, []).append(auc(scores, test.labels))
            if probe.selected:
                unseen = logits.setdefault(probe.kind, np.full(len(train), np.nan))
                unseen[fold == held_out] = probe.logits(scores)
    found = []
    for probe in method(train, seed):
        cv_auc = float(np.mean(areas.get(_key(probe, selected=probe.selected), [np.nan])))
        judged = replace(probe, n_train=len(train), cv_auc=cv_auc)
        found.append(unshrunk(judged, logits[probe.kind], train) if probe.selected else judged)
    return found


def unshrunk(probe: Probe, oof_logits: Floats, train: Rows) -> Probe:
    """The probe with its out-of-fold logits [n]. If these are too close to 0, its probabilities are rescaled.

    A strong penalty leaves the order of the scores alone and shrinks them, so that even a perfect probe says 0.52.
    A logistic regression of the labels on the out-of-fold logits finds that as a slope above 1 (Platt scaling; Platt,
    Probabilistic outputs for support vector machines, 1999). A slope below 1 is left alone: where no fold errs, it
    measures the penalty of that regression.
    """
    slopes, bias = fit_path(oof_logits[:, None], train.labels, [1.0], "rms")[0]
    if not (slope := float(slopes[0])) > 1:
        return replace(probe, oof_logits=oof_logits)
    return replace(
        probe,
        platt_slope=slope * probe.platt_slope,
        platt_bias=slope * probe.platt_bias + bias,
        oof_logits=slope * oof_logits + bias,
    )


def _key(probe: Probe, *, selected: bool) -> Key:
    return (probe.kind, "selected", 0, 0) if selected else (probe.kind, "", probe.rank, probe.n_features)
