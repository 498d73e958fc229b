"""How often the 95% intervals hold the truth, over a grid of AUCs and numbers of groups, beside the percentile's.

Scores are Gaussian, so that the true AUC is known, except those of a feature that fires or is silent.
Run: OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/coverage.py
"""

from collections import Counter
from collections.abc import Callable

import numpy as np
from scipy import stats

from sae_transfer.stats import intervals, roc, thresholds
from sae_transfer.stats.intervals import Estimate

Hits = Counter[tuple[str, object]]  # by method and by truth

AUCS = (0.5, 0.7, 0.9, 0.97, 0.99)
PAIRS = ((0.99, 0.99), (0.99, 0.95), (0.97, 0.9), (0.9, 0.9), (0.8, 0.7), (0.5, 0.99))
ACCURACIES = (0.5, 0.7, 0.9, 0.97, 0.99)
SIMULATIONS, RESAMPLES = 300, 500
SQRT_HALF = np.sqrt(0.5)  # of the variance of a score is its group's


def rows(design: str, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """(groups, labels): pairs of one label, pairs of both labels, or single rows."""
    if design == "single rows":
        return np.arange(n_groups), np.arange(n_groups) % 2
    groups = np.repeat(np.arange(n_groups), 2)
    return groups, (groups % 2 if design == "pairs of one label" else np.tile([0, 1], n_groups))


def noise(rng: np.random.Generator, groups: np.ndarray) -> np.ndarray:
    """Unit variance, correlated by 0.5 within a group."""
    return SQRT_HALF * rng.normal(size=groups.max() + 1)[groups] + SQRT_HALF * rng.normal(size=len(groups))


def gaussian(z: np.ndarray, labels: np.ndarray, auc: float) -> np.ndarray:
    return z + labels * np.sqrt(2) * stats.norm.ppf(auc)


def unequal(z: np.ndarray, labels: np.ndarray, auc: float) -> np.ndarray:
    """Answerable rows vary a third as much as unanswerable ones."""
    return np.where(labels == 1, 0.3 * z + np.sqrt(1.09) * stats.norm.ppf(auc), z)


def firing(z: np.ndarray, labels: np.ndarray, auc: float) -> np.ndarray:
    """1 or 0, as a feature that fires for answerable rows and rarely for others."""
    rare = min(0.02, 2 - 2 * auc)
    return (stats.norm.cdf(z) < np.where(labels == 1, rare + 2 * auc - 1, rare)).astype(float)


def measured(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, weights: np.ndarray
) -> tuple[Estimate, np.ndarray]:
    area, resampled = roc.auc(scores, labels), roc.weighted_auc(scores, labels, weights)
    return intervals.interval(area, resampled, enough(intervals.effective_groups(labels, groups))), resampled


def enough(n_groups: float) -> float:
    """Below MIN_GROUPS the package gives no interval: the row shows what it would be."""
    return max(n_groups, intervals.MIN_GROUPS)


def percentile(value: float, resampled: np.ndarray) -> Estimate:
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return Estimate(value, low, high)


def holds(found: Estimate, truth: float) -> bool:
    return found.low - 1e-9 <= truth <= found.high + 1e-9


def areas(design: str, score: Callable[..., np.ndarray], n_groups: int) -> Hits:
    """{(method, auc): how often the interval held it}."""
    rng, hits = np.random.default_rng(n_groups), Hits()
    groups, labels = rows(design, n_groups)
    for _ in range(SIMULATIONS):
        z, weights = noise(rng, groups), intervals.group_weights(groups, RESAMPLES, rng)
        for auc in AUCS:
            found, resampled = measured(score(z, labels, auc), labels, groups, weights)
            hits["now", auc] += holds(found, auc)
            hits["percentile", auc] += holds(percentile(found.value, resampled), auc)
    return hits


def differences(design: str, n_groups: int) -> Hits:
    rng, hits = np.random.default_rng(n_groups), Hits()
    groups, labels = rows(design, n_groups)
    for _ in range(SIMULATIONS):
        weights = intervals.group_weights(groups, RESAMPLES, rng)
        z = noise(rng, groups)
        noises = z, 0.8 * z + 0.6 * noise(rng, groups)  # two probes err alike
        for pair in PAIRS:
            (one, a), (other, b) = (
                measured(gaussian(z, labels, auc), labels, groups, weights) for z, auc in zip(noises, pair, strict=True)
            )
            n = enough(intervals.effective_groups(labels, groups))
            found = intervals.difference_interval(one.value, other.value, a, b, n)
            hits["now", pair] += holds(found, pair[0] - pair[1])
            hits["percentile", pair] += holds(percentile(one.value - other.value, a - b), pair[0] - pair[1])
    return hits


def accuracies(design: str, n_groups: int) -> Hits:
    rng, hits = np.random.default_rng(n_groups), Hits()
    groups, labels = rows(design, n_groups)
    for _ in range(SIMULATIONS):
        u, weights = stats.norm.cdf(noise(rng, groups)), intervals.group_weights(groups, RESAMPLES, rng)
        for share in ACCURACIES:
            p = np.where(u < share, labels, 1 - labels)
            value, resampled = thresholds.accuracy(p, labels), thresholds.weighted_accuracy(p, labels, weights)
            hits["now", share] += holds(intervals.interval(value, resampled, enough(n_groups)), share)
            hits["percentile", share] += holds(percentile(value, resampled), share)
    return hits


def table(title: str, heads: list[str], sizes: tuple[int, ...], simulate: Callable[[int], Hits]) -> None:
    print(f"\n{title}\n\n| groups | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|")
    for n_groups in sizes:
        hits = simulate(n_groups)
        keys = list(dict.fromkeys(key for _, key in hits))
        shares = [f"{hits['now', key] / SIMULATIONS:.0%} ({hits['percentile', key] / SIMULATIONS:.0%})" for key in keys]
        name = f"{n_groups} (refused)" if n_groups < intervals.MIN_GROUPS else str(n_groups)
        print(f"| {name} | " + " | ".join(shares) + " |", flush=True)


def main() -> None:
    error = np.sqrt(0.95 * 0.05 / SIMULATIONS)
    print(f"{SIMULATIONS} simulations a cell (standard error {error:.1%}); in brackets the percentile bootstrap")
    heads = [f"AUC {auc}" for auc in AUCS]
    main_sizes, few = (8, 15, 50, 200, 500), (15, 50, 200)
    one, both, single = "pairs of one label", "pairs of both labels", "single rows"
    table(f"AUC, {one}", heads, main_sizes, lambda n: areas(one, gaussian, n))
    table(f"AUC, {both}", heads, few, lambda n: areas(both, gaussian, n))
    table(f"AUC, {single}, unequal variances", heads, few, lambda n: areas(single, unequal, n))
    table(f"AUC, {single}, a feature that fires or is silent", heads, few, lambda n: areas(single, firing, n))
    table(f"Difference of two AUCs, {one}", [f"{a} - {b}" for a, b in PAIRS], few, lambda n: differences(one, n))
    table(f"Accuracy, {one}", [f"accuracy {share}" for share in ACCURACIES], few, lambda n: accuracies(one, n))


if __name__ == "__main__":
    main()
