"""One bootstrap sample at the size of a large study: the residual probe trained, and an SAE's features ranked, anew.

Run: OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/resampling.py
"""

import time

import numpy as np
from search import D_SAE, L0, N_ROWS, long_tailed

from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.resampling import draw, refit
from sae_transfer.probing.rows import Rows

D_MODEL, DIRECTIONS, REPEATS = 3_584, 200, 3


def stream(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """[n, d_model] with a few strong directions, and one that tells the labels apart."""
    strong = rng.normal(size=(DIRECTIONS, D_MODEL)) * np.geomspace(10, 0.1, DIRECTIONS)[:, None]
    noise = rng.normal(size=(len(labels), DIRECTIONS)) @ strong + rng.normal(size=(len(labels), D_MODEL))
    return (noise + np.outer(labels - 0.5, 0.15 * rng.normal(size=D_MODEL))).astype(np.float32)


def seconds(fitted: list[Probe], train: Rows) -> float:
    """Of one sample, the best of several."""
    found = []
    for repeat in range(REPEATS):
        drawn = train.take(draw(train.groups, "bootstrap", np.random.default_rng(repeat)))
        start = time.perf_counter()
        refit(fitted, drawn, 0, ProbeParams())
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(N_ROWS) % 2)
    groups = np.arange(N_ROWS).astype(str)
    dense = Rows(stream(rng, labels), labels, groups)
    for C in (0.001, 0.1, 10.0):
        residual = Probe("residual", "residual", np.ones(D_MODEL), 0.0, C=C)
        print(f"residual, n = {N_ROWS}, d_model = {D_MODEL}, C = {C}: {seconds([residual], dense):.2f} s")
    sizes = [(f"sparse_{'1' if rank else 'n'}", rank, n) for rank, n in [(1, 1), (0, 2), (0, 16), (0, 64)]]
    sparse = [
        Probe(kind, "sparse_n", np.ones(n), 0.0, np.arange(n), 0.1, rank, ranking="auc") for kind, rank, n in sizes
    ]
    features = Rows(long_tailed(rng), labels, groups)
    print(f"SAE, d_sae = {D_SAE}, L0 = {L0}: {seconds(sparse, features):.2f} s")


if __name__ == "__main__":
    main()
