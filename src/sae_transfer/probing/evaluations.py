"""B's test rows as every probe is evaluated on them, with the bootstrap that all probes share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_transfer.core.arrays import Floats
from sae_transfer.core.params_section import ParamsSection
from sae_transfer.core.randomness import rng_for
from sae_transfer.stats import intervals, roc
from sae_transfer.stats.intervals import Estimate


class TransferParams(ParamsSection):
    """Section `transfer` of the params."""

    resamples: int = 1000
    whole: bool = False  # also test on all rows of B, where A is another dataset


@dataclass(frozen=True)
class Evaluation:
    """B's test rows: `labels` [n] of 0 and 1, `groups` [n], and the bootstrap weights [R, n] that all probes share."""

    labels: NDArray[np.int_]
    groups: NDArray[np.str_]
    weights: Floats

    def take(self, rows: NDArray[Any]) -> "Evaluation":
        """Some of the rows, in the same resamples of groups."""
        return Evaluation(self.labels[rows], self.groups[rows], self.weights[:, rows])

    @cached_property
    def n_groups(self) -> int:
        return len(np.unique(self.groups))

    @cached_property
    def equal_groups(self) -> float:
        """How many groups of equal size would tell as much: what a share of rows rests on."""
        return intervals.equal_groups(self.groups)

    @cached_property
    def effective_groups(self) -> float:
        """What an AUC rests on."""
        return intervals.effective_groups(self.labels, self.groups)


def evaluation_of(
    labels: NDArray[np.int_], groups: NDArray[np.str_], dataset: str, seed: int, params: TransferParams
) -> Evaluation:
    """B's test rows with bootstrap weights that depend on the seed and the dataset alone."""
    weights = intervals.group_weights(groups, params.resamples, rng_for(seed, "test bootstrap", dataset))
    return Evaluation(labels, groups, weights)


@dataclass(frozen=True)
class BootstrappedAUC:
    """A probe's AUC on the test rows, and on each resample [R] of them."""

    auc: float
    resampled: Floats

    def interval(self, n_groups: float) -> Estimate:
        """The AUC with its interval, over so many effective groups."""
        return intervals.interval(self.auc, self.resampled, n_groups)

    def minus(self, other: "BootstrappedAUC", n_groups: float) -> Estimate:
        """This AUC minus another on the same resamples, with the interval of the paired difference."""
        return intervals.difference_interval(self.auc, other.auc, self.resampled, other.resampled, n_groups)


def bootstrapped_auc(scores: Floats, test: Evaluation) -> BootstrappedAUC:
    resampled = roc.weighted_auc(scores, test.labels, test.weights)
    return BootstrappedAUC(roc.auc(scores, test.labels), resampled)


def mean_auc(found: Sequence[BootstrappedAUC]) -> BootstrappedAUC:
    """The mean of several AUC that share their resamples, on the rows and on each resample."""
    resampled = np.asarray(np.mean([one.resampled for one in found], axis=0))
    return BootstrappedAUC(float(np.mean([one.auc for one in found])), resampled)
