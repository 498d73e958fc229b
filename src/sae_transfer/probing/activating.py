"""What a feature fires on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_transfer.core.arrays import Ints


def most_active(activations: NDArray[Any], n: int) -> Ints:
    """The rows on which a feature fires most, at most n, the strongest first (ties: the earlier row).

    >>> most_active(np.array([0.0, 2.0, 1.0, 2.0]), 3)
    array([1, 3, 2])
    """
    best: Ints = np.argsort(-activations, kind="stable")[:n]
    return best[activations[best] > 0]
