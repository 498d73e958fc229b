"""Cross-validation of whole methods: everything that a method learns is learnt anew in every fold."""

from dataclasses import replace
from typing import Any

import numpy as np

from sae_transfer.core.arrays import Floats
from sae_transfer.probing.probe import Method, Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows
from sae_transfer.stats.roc import auc


def mean_over_folds(areas: Any) -> Floats:
    """Means over the first axis, rounded so that the order of a sum's terms never breaks a tie."""
    means: Floats = np.round(np.mean(areas, axis=0, dtype=np.float64), 12)
    return means


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
