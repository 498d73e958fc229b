"""Labelled rows of a dataset in a space."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_transfer.core.arrays import Matrix
from sae_transfer.probing import own_arrays
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

    @classmethod
    def of(cls, X: Any, y: Any, groups: Any = None, ids: Any = None) -> "Rows":
        """Rows of a person's own arrays, checked.

        Args:
            X: [n, d], numbers that are finite: a NumPy array, nested lists, a DataFrame, a scipy.sparse matrix, or a
                dense torch tensor.
            y: [n], labels of 0 and 1, of False and True, or of -1 and 1.
            groups: [n], the group of each row (a passage, an entity); by default each row is a group of its own.
            ids: [n], names of the rows.

        Raises:
            UserError: something else is given; the message says what, and where.

        >>> rows = Rows.of([[0.5, 1.0], [2.0, 0.0], [0.1, 0.9], [1.5, 0.2]], [True, False, True, False])
        >>> rows.labels.tolist(), rows.n_groups
        ([1, 0, 1, 0], 4)
        >>> Rows.of([[0.5], [float("nan")]], [1, 0])
        Traceback (most recent call last):
        sae_transfer.core.errors.UserError: X has nan in row 1, column 0; leave that row out or mend it
        """
        found = own_arrays.matrix(X)
        n = found.shape[0]
        rows = [f"row {i}" for i in range(n)] if groups is None else groups
        named = None if ids is None else own_arrays.names(ids, n, "ids")
        return cls(found, own_arrays.labels(y, n), own_arrays.names(rows, n, "groups"), named)

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
