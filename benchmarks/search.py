"""The search over single features at the size of a wide SAE: seconds and peak memory.

Run: OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/search.py
Goal: at most 3 s and 1 GB.
"""

import resource
import sys
import time
import tracemalloc

import numpy as np
from scipy import sparse

from sae_transfer.probing import search

N_ROWS, D_SAE, L0, FOLDS = 2_000, 131_072, 100, 5
REPEATS = 3
ZIPF = 0.995  # with this tail some 46,650 features fire at all, as in a real SAE on as many prompts
GOAL_SECONDS, GOAL_BYTES = 3, 1e9


def long_tailed(rng: np.random.Generator) -> sparse.csr_array:
    """Features [n, d_sae] that fire L0 times a row in all; how often each one fires falls like a power of its rank."""
    rates = np.arange(1, D_SAE + 1) ** -ZIPF
    low, high = 0.0, float(N_ROWS * L0)
    for _ in range(60):  # the factor that gives L0, no rate above 1
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(rates * middle, 1).sum() < L0 else (low, middle)
    counts = rng.binomial(N_ROWS, np.minimum(rates * low, 1))
    rows = np.concatenate([rng.choice(N_ROWS, count, replace=False) for count in counts if count])
    columns = np.repeat(rng.permutation(D_SAE), counts)
    return sparse.csr_array((rng.gamma(2.0, 1.0, len(rows)), (rows, columns)), shape=(N_ROWS, D_SAE))


def measure(X: sparse.csr_array, labels: np.ndarray, folds: np.ndarray) -> tuple[int, float, int]:
    """How many features were ranked, seconds (best of several), and bytes allocated at the peak beyond the input."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        ranking = search.rank_features(X, labels, folds)
        seconds.append(time.perf_counter() - start)
    tracemalloc.start()  # slows everything down, so it has a run of its own
    search.rank_features(X, labels, folds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return len(ranking.feature_ids), min(seconds), peak


def main() -> None:
    rng = np.random.default_rng(0)
    X = long_tailed(rng)
    labels = rng.permutation(np.repeat([0, 1], N_ROWS // 2))
    folds = rng.permutation(np.arange(N_ROWS) % FOLDS)
    firing = len(np.unique(X.indices))
    print(f"n = {N_ROWS:,}, d_sae = {D_SAE:,}, L0 = {X.nnz / N_ROWS:.1f}, {firing:,} features fire, {FOLDS} folds\n")
    print("| a feature must fire on | features ranked | seconds (best of 3) | peak memory of the search | goal |")
    print("|---|---|---|---|---|")
    for min_rows in (1, search.MIN_ROWS):
        search.MIN_ROWS = min_rows
        n_ranked, seconds, peak = measure(X, labels, folds)
        met = "met" if seconds <= GOAL_SECONDS and peak <= GOAL_BYTES else "missed"
        print(f"| {min_rows} rows | {n_ranked:,} | {seconds:.2f} | {peak / 1e6:.0f} MB | {met} |", flush=True)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(f"\nThe whole process, imports included, peaked at {peak / 1e6:.0f} MB.")


if __name__ == "__main__":
    main()
