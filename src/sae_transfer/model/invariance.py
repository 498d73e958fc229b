"""Whether a row of the residual stream depends on the rows beside it. Takes a function that runs prompts, no model.

Some models let the longest prompt of a batch choose how all are read (LongRoPE), have no mask (FNet), keep what the
last batch set (dynamic RoPE), or draw at random (YOSO). So before a pass over prompts a few of them, of different
length, run alone and together: sound models differ by rounding alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Relative differences between what rounding does and what is broken, measured on 170 families of transformers. In
# float32 sound ones differ by 2e-5 at most, broken ones by 2e-3 and more; bfloat16 moves a sound one by up to 4%.
LIMIT = {"float32": 2e-4, "bfloat16": 0.1}
MOST = 4  # prompts that are compared

Ids = Sequence[Sequence[int]]
Streams = Mapping[int, np.ndarray]
Run = Callable[[Ids, Sequence[int]], Streams]
"""Token ids of n prompts and where each is read [n] -> {layer: [n, d_model]}."""


class UnstableError(ValueError):
    """What a model does to its rows, to follow its name."""


@dataclass(frozen=True)
class Batching:
    """The relative difference |a - b| / |b| of a prompt's stream in a batch to alone, the worst of those compared.

    `padded` is with longer prompts in the batch; `equal` with one of its own length, measured where `padded` is beyond
    the limit. None: not measured.
    """

    limit: float
    padded: float | None = None
    equal: float | None = None

    @property
    def equal_lengths(self) -> bool:
        """Whether only prompts of one length may share a batch."""
        return self.padded is not None and self.padded > self.limit


def measure(run: Run, ids: Ids, at: Sequence[int], tokens_per_batch: int, limit: float) -> Batching:
    """Compares a few of n prompts alone, together, and where that fires beside others of their length.

    Raises:
        UnstableError: a prompt's stream differs from run to run, or depends on its batch whatever the lengths there.
    """
    rows = compared([len(row) for row in ids], tokens_per_batch)
    if len(rows) < 2:
        return Batching(limit)
    some, where = [ids[row] for row in rows], [at[row] for row in rows]
    # The shortest first: what a longer prompt leaves behind shows when they run the other way round.
    alone = _reversed(one_by_one(run, some[::-1], where[::-1]))
    if not all(np.isfinite(rows).all() for rows in alone.values()):
        return Batching(limit)  # whoever runs all prompts says which
    again = distance(one_by_one(run, some, where), alone)
    if again > limit:
        raise UnstableError(f"gives a prompt another residual stream from run to run (relative difference {again:.2g})")
    padded = distance(_together(run, some, where, tokens_per_batch), alone)
    if padded <= limit:
        return Batching(limit, padded)
    pairs = [run([tokens, _rearranged(tokens)], [place, place]) for tokens, place in zip(some, where, strict=True)]
    equal = distance({layer: np.stack([pair[layer][0] for pair in pairs]) for layer in alone}, alone)
    if equal > limit:
        raise UnstableError(
            "gives a prompt another residual stream beside other prompts, also beside those of its length (relative "
            f"difference {equal:.2g}); set model.tokens_per_batch: 1, which runs each alone"
        )
    return Batching(limit, padded, equal)


def compared(lengths: Sequence[int], tokens_per_batch: int) -> list[int]:
    """Up to `MOST` rows, the longest first: of as many lengths as there are, evenly from the shortest to the longest.

    Rows of more than half a batch are left out where shorter ones share batches: they run alone.
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    shared = [row for row in order if 2 * lengths[row] <= tokens_per_batch]
    order = shared if len(shared) > 1 else order
    firsts = [row for i, row in enumerate(order) if i == 0 or lengths[row] != lengths[order[i - 1]]]
    n = min(MOST, len(firsts))
    chosen = [firsts[round(i * (len(firsts) - 1) / max(1, n - 1))] for i in range(n)]
    chosen += [row for row in order if row not in chosen][: MOST - n]
    return sorted(chosen, key=lambda row: -lengths[row])


def one_by_one(run: Run, ids: Ids, at: Sequence[int]) -> Streams:
    """The prompts' streams, each run alone."""
    single = [run([tokens], [place]) for tokens, place in zip(ids, at, strict=True)]
    return {layer: np.concatenate([each[layer] for each in single]) for layer in single[0]}


def distance(streams: Streams, expected: Streams) -> float:
    """The largest |a - b| / |b| over layers and rows."""
    worst = 0.0
    for layer, b in expected.items():
        difference, length = np.linalg.norm(streams[layer] - b, axis=1), np.linalg.norm(b, axis=1)
        relative = difference / np.maximum(length, np.finfo(np.float32).tiny)
        worst = max(worst, float(np.nan_to_num(relative, nan=np.inf).max()))
    return worst


def _reversed(streams: Streams) -> Streams:
    return {layer: rows[::-1] for layer, rows in streams.items()}


def _together(run: Run, ids: Ids, at: Sequence[int], tokens_per_batch: int) -> Streams:
    """Each prompt in a batch with the longest, which comes first; as many at once as a batch has room for."""
    beside = max(1, tokens_per_batch // len(ids[0]) - 1)
    found = []
    for start in range(1, len(ids), beside):
        rows = [0, *range(start, min(start + beside, len(ids)))]
        both = run([ids[row] for row in rows], [at[row] for row in rows])
        found.append({layer: x if start == 1 else x[1:] for layer, x in both.items()})
    return {layer: np.concatenate([each[layer] for each in found]) for layer in found[0]}


def _rearranged(tokens: Sequence[int]) -> list[int]:
    """Another prompt of the same length and vocabulary, with the same first token."""
    return [tokens[0], *tokens[:0:-1]]
