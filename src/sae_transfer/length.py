"""Does a probe read how long a prompt is? AUC with answerable and unanswerable prompts of like length compared alone.

Pure functions on arrays.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sae_transfer import metrics
from sae_transfer.metrics import Estimate
from sae_transfer.transfer import TestSet, reference

STRATA = 3

# One row a headline probe (full size, B's own template, the rank or N that the training data chose). `auc` compares all
# pairs of an answerable and an unanswerable row, `stratified_auc` those of one stratum of prompt length (terciles of
# B's test prompts by characters); `low` and `high` are its interval, `strata` how many strata have rows of both labels,
# `pairs` the share of all pairs that is left.
COLUMNS = (
    "space train test probe family n_features n_train auc auc_low auc_high stratified_auc low high strata pairs reason"
).split()


@dataclass(frozen=True)
class Stratified:
    """The AUC over all pairs and over pairs of like length, in how many strata, and the share of pairs that is."""

    plain: Estimate
    within: Estimate
    strata: int
    pairs: float


def length_strata(lengths: ArrayLike, k: int = STRATA) -> NDArray[np.int64]:
    """The stratum [n], from 0, of each row: between the k-quantiles of the lengths [n]; equal lengths stay together."""
    lengths = np.asarray(lengths)
    edges = np.quantile(lengths, np.arange(1, k) / k)
    return np.searchsorted(np.unique(edges), lengths, side="left").astype(np.int64)


def stratified(scores: NDArray[np.float64], strata: NDArray[np.int64], test: TestSet) -> Stratified:
    """A probe's AUC on B's test rows with and without the pairs that differ in their stratum.

    Args:
        scores: [n].
        strata: [n], as `length_strata` gives them.
        test: B's test rows and their resamples.

    Returns:
        NaN and the reason where no stratum has both labels.
    """
    everything = reference(scores, test)
    plain = metrics.interval(everything.auc, everything.resampled, test.effective_groups)
    own = np.ones((1, len(scores)))
    value = float(metrics.weighted_auc(scores, test.labels, own, strata)[0])
    resampled = metrics.weighted_auc(scores, test.labels, test.weights, strata)
    within = metrics.interval(value, resampled, test.effective_groups)
    if np.isnan(value) and not np.isnan(everything.auc):
        within = Estimate(np.nan, np.nan, np.nan, "every stratum has one class")
    answerable, unanswerable = (
        np.array([np.sum((strata == stratum) & (test.labels == label)) for stratum in np.unique(strata)])
        for label in (1, 0)
    )
    every = answerable.sum() * unanswerable.sum()
    left = float((answerable * unanswerable).sum() / every) if every else np.nan
    return Stratified(plain, within, int(((answerable > 0) & (unanswerable > 0)).sum()), left)
