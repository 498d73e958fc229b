"""Cross-validation: how C and the size of a probe are chosen, and how a whole method is judged.

Everything that a method learns is learnt anew in every fold.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sae_transfer.core.arrays import Floats
from sae_transfer.probing.probe import Method, Probe, decision_function
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows
from sae_transfer.stats.logistic import Scaling, fit_path
from sae_transfer.stats.roc import auc


def path_areas(
    rest: Rows, test: Rows, sizes: Sequence[int], Cs: Sequence[float], scaling: Scaling
) -> list[list[float]]:
    """AUC on `test` of logistic regressions on the first columns of `rest`, for every size and C."""
    paths = [fit_path(rest.X[:, :size], rest.labels, Cs, scaling) for size in sizes]
    return [
        [auc(decision_function(test.X[:, :size], fit), test.labels) for fit in path]
        for size, path in zip(sizes, paths, strict=True)
    ]


def choose(areas: Any, Cs: Sequence[float]) -> tuple[int, list[float]]:
    """What has the best mean AUC over the folds; ties go to the smaller size, then to the smaller C.

    Args:
        areas: [n_folds, n_sizes, n_Cs], both axes ascending.
        Cs: ascending.

    Returns:
        (the place of the best size, the best C of each size).
    """
    # Rounded, so that the order of a sum's terms never breaks a tie.
    means: Floats = np.round(np.mean(areas, axis=0, dtype=np.float64), 12)
    return int(np.argmax(means.max(axis=1))), [Cs[place] for place in means.argmax(axis=1)]


Key = tuple[str, str, int, int]


def cross_validate(method: Method, train: Rows, seed: int, params: ProbeParams) -> list[Probe]:
    """The method's probes trained on all of `train`, with the cv_auc and the out-of-fold logits of what is behind them.

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
    return [
        replace(
            probe,
            n_train=len(train),
            cv_auc=float(np.mean(areas.get(_key(probe, selected=probe.selected), [np.nan]))),
            oof_logits=logits.get(probe.kind) if probe.selected else None,
        )
        for probe in method(train, seed)
    ]


def _key(probe: Probe, *, selected: bool) -> Key:
    return (probe.kind, "selected", 0, 0) if selected else (probe.kind, "", probe.rank, probe.n_features)
