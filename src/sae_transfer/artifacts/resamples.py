"""The bootstrap of A's training groups on disk: the probes and rankings of every sample."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sae_transfer.core.arrays import Floats, Ints
from sae_transfer.core.files import damaged, read_arrays, write_arrays


@dataclass(frozen=True)
class Resampled:
    """Over bootstrap samples of A's training groups, at full size.

    `residual` [B, d_model] are the residual probe's weights on each sample that allowed one (a residual stream), `best`
    the features of each sample from the best on, cut after the first hundred (an SAE).
    """

    residual: Floats
    best: tuple[Ints, ...]


def write(path: Path, found: Resampled) -> None:
    """One safetensors file: the weights, and all rankings concatenated, with their lengths."""
    lengths = np.array([len(ids) for ids in found.best], dtype=np.int64)
    ids = np.concatenate([np.empty(0, dtype=np.int64), *found.best])
    write_arrays(path, {"residual": found.residual, "best": ids, "lengths": lengths}, {})


def read(path: Path) -> Resampled:
    """What `write` wrote.

    Raises:
        UserError: missing, or damaged.
    """
    arrays, _ = read_arrays(path)
    try:
        best = np.split(arrays["best"], np.cumsum(arrays["lengths"])[:-1]) if len(arrays["lengths"]) else []
        return Resampled(arrays["residual"], tuple(best))
    except KeyError as error:
        raise damaged(path, error) from None
