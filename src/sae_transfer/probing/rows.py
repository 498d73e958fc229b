"""Labelled rows of a dataset in a space."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_transfer.core.arrays import Matrix
from sae_transfer.stats.folds import assign_folds


@dataclass(frozen=True)
class Rows:
    """Labelled rows in one space: `X` [n, d], `labels` [n] of 0 and 1, `groups` [n] of names, `ids` [n] or None.

    Rows of one group (a passage, an entity) never stand on both sides of a split or a fold.
    """

    X: Matrix
    labels: NDArray[np.int_]
    groups: NDArray[np.str_]
    ids: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.groups))

    def take(self, chosen: NDArray[Any]) -> "Rows":
        """The rows at these indices, or where the mask is True."""
        ids = None if self.ids is None else self.ids[chosen]
        return Rows(self.X[chosen], self.labels[chosen], self.groups[chosen], ids)

    def folds(self, k: int, seed: int) -> NDArray[np.int64]:
        """The fold of each row [n]: stratified by label, by group."""
        return assign_folds(self.labels, list(self.groups), k, seed)

    def folded(self, k: int, seed: int) -> Iterator[tuple["Rows", "Rows"]]:
        """(the other folds, the held-out fold), for each of k stratified folds by group."""
        fold = self.folds(k, seed)
        for held_out in range(k):
            yield self.take(fold != held_out), self.take(fold == held_out)
