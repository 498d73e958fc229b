"""How often the bootstrap's 95% interval holds the true AUC, over a grid of AUCs and numbers of groups.

Scores are Gaussian, so that the true AUC is known; a group is two rows of one label whose scores correlate.
Run: OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/coverage.py
"""

import numpy as np
from scipy import stats

from sae_transfer import metrics

AUCS = (0.5, 0.7, 0.9, 0.99)
GROUPS = (8, 15, 50, 200, 500)
SIMULATIONS, RESAMPLES, GROUP_SIZE = 300, 1000, 2
CORRELATION = 0.5


def covered(n_groups: int) -> np.ndarray:
    """[simulations, aucs]: whether the interval held the truth; the AUCs share their noise and their resamples."""
    rng = np.random.default_rng(n_groups)
    groups = np.repeat(np.arange(n_groups), GROUP_SIZE)
    labels = groups % 2
    hits = np.empty((SIMULATIONS, len(AUCS)), dtype=bool)
    for i in range(SIMULATIONS):
        shared = rng.normal(size=n_groups)[groups]
        noise = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * rng.normal(size=len(groups))
        weights = metrics.group_weights(groups, RESAMPLES, rng)
        for j, auc in enumerate(AUCS):
            scores = noise + labels * np.sqrt(2) * stats.norm.ppf(auc)
            resampled = metrics.weighted_auc(scores, labels, weights)
            # below MIN_GROUPS the package gives no interval: the row shows why
            found = metrics.interval(metrics.auc(scores, labels), resampled, max(n_groups, metrics.MIN_GROUPS))
            hits[i, j] = found.low <= auc <= found.high
    return hits


def main() -> None:
    print(f"{SIMULATIONS} simulations a cell (one standard error at 95%: {np.sqrt(0.95 * 0.05 / SIMULATIONS):.1%})\n")
    print("| groups | " + " | ".join(f"AUC {auc}" for auc in AUCS) + " |")
    print("|---" * (len(AUCS) + 1) + "|")
    for n_groups in GROUPS:
        name = f"{n_groups} (refused)" if n_groups < metrics.MIN_GROUPS else str(n_groups)
        print(
            f"| {name} | " + " | ".join(f"{share:.0%}" for share in covered(n_groups).mean(axis=0)) + " |", flush=True
        )


if __name__ == "__main__":
    main()
