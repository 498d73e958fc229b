"""What can be known of a candidate of A before it is used on B. All of it comes from training rows."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from sae_transfer.analyses.candidates import FEATURES, Candidates, Stream
from sae_transfer.analyses.domains import Domain, others
from sae_transfer.analyses.generalization import GeneralizationParams
from sae_transfer.core.arrays import Floats, Ints
from sae_transfer.core.errors import UserError
from sae_transfer.core.randomness import rng_for
from sae_transfer.probing.probe import decision_function
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.search import column_auc
from sae_transfer.stats.correlations import correlations
from sae_transfer.stats.cosines import cosine, mahalanobis_cosine
from sae_transfer.stats.distances import distances
from sae_transfer.stats.logistic import fit_path
from sae_transfer.stats.roc import auc

SEPARATION_C = 0.01
SEPARATION_ROWS = 500  # of each dataset: domains are told apart by far fewer
HELD, AGREES, FEW = "auc_on.", "agreement_with.", "few_"  # columns, one a domain or a draw

# What each statistic of a candidate of A for B sees of B (nothing, rows without labels, or labels), and what it is.
STATISTICS = {
    "cv_auc": ("no", "cross-validated AUC on A"),
    "density_train": ("no", "share of A's rows on which it fires"),
    "selection_frequency": ("no", "share of A's bootstrap resamples in which it is among the top_k best"),
    "decoder_cosine": ("no", "cosine of its direction to A's residual probe"),
    "mahalanobis_train": ("no", "the same cosine under the covariance of A's rows"),
    "consensus_mean": ("no", "mean AUC, with A's sign, on the training rows of the sources other than A and B"),
    "consensus_min": ("no", "the lowest of these AUC"),
    "density_test": ("rows", "share of B's rows on which it fires"),
    "density_shift": ("rows", "absolute difference of the two densities"),
    "wasserstein": ("rows", "Wasserstein distance between its values, divided by their RMS on A, on A and on B"),
    "ks": ("rows", "Kolmogorov-Smirnov distance between these values"),
    "mahalanobis_test": ("rows", "cosine of its direction to A's residual probe under the covariance of B's rows"),
    "agreement": ("rows", "correlation, over B's rows, of its scores with those of A's residual probe"),
    "agreement_sources": ("rows", "the same with the residual probe of every source other than B, mean"),
    "separability": ("rows", "cross-validated AUC of telling A's rows from B's in the residual stream; one a pair"),
    "mahalanobis_target": ("labels", "the bound: cosine to the residual probe of B's labels under B's covariance"),
    "agreement_target": ("labels", "the same with its own scores: their correlation with that probe's over B's rows"),
}
TARGET_ACCESS = {name: sees for name, (sees, _) in STATISTICS.items()}
LABEL_FREE = [name for name, sees in TARGET_ACCESS.items() if sees != "labels"]

Few = Mapping[int, Ints]  # draws of labelled rows of B by the number of labels: each [draws, n] of places in B's train


def few_labels(b: Domain, params: GeneralizationParams, seed: int) -> Few:
    """Half of each label, without replacement; no draw of a size that B's training rows do not hold."""
    by_label = [np.flatnonzero(b.train.labels == label) for label in (0, 1)]
    found = {}
    for n in params.few_labels:
        enough = n // 2 <= min(map(len, by_label))
        rngs = [rng_for(seed, "few labels", b.name, n, draw) for draw in range(params.draws if enough else 0)]
        drawn = [np.concatenate([rng.choice(rows, n // 2, replace=False) for rows in by_label]) for rng in rngs]
        found[n] = np.array(drawn, dtype=np.int64).reshape(-1, n)
    return found


def statistics(
    candidates: Candidates,
    a: Domain,
    b: Domain,
    domains: Sequence[Domain],
    streams: Mapping[str, Stream],
    few: Few,
    separability: float,
) -> pd.DataFrame:
    """One row a candidate of A, with what is known of it for B and, as `auc`, what it was worth on B's test rows.

    No statistic sees a test row; `auc` is the outcome and nothing else is computed from it.
    """
    X_a, X_b, sign = candidates.train[a.name], candidates.train[b.name], candidates.sign
    stream_a, stream_b, direction = streams[a.name], streams[b.name], candidates.direction
    reference, target = stream_a.residual.weights[None], stream_b.residual.weights[None]
    density = [_density(X) if candidates.fires else np.full(len(sign), np.nan) for X in (X_a, X_b)]
    apart = distances(*_scaled(X_a, X_b))
    table = {
        "train": a.name,
        "test": b.name,
        "candidate": candidates.name,
        "origin": candidates.origin,
        "cv_auc": candidates.cv_auc,
        "density_train": density[0],
        "density_test": density[1],
        "density_shift": np.abs(density[0] - density[1]),
        "selection_frequency": candidates.frequency,
        "wasserstein": apart.wasserstein,
        "ks": apart.ks,
        "decoder_cosine": cosine(direction, reference)[:, 0],
        "mahalanobis_train": mahalanobis_cosine(direction, reference, stream_a.covariance)[:, 0],
        "mahalanobis_test": mahalanobis_cosine(direction, reference, stream_b.covariance)[:, 0],
        "separability": separability,
        "mahalanobis_target": mahalanobis_cosine(direction, target, stream_b.covariance)[:, 0],
    }
    sources = others(domains, b)
    for c in others(domains, a, b):
        table[HELD + c.name] = column_auc(candidates.train[c.name], c.train.labels, sign)
    scores = np.array([streams[c.name].residual.score(stream_b.train.X) for c in [*sources, b]])
    *agree, table["agreement_target"] = sign * correlations(scores.T, X_b)
    table |= {AGREES + c.name: row for c, row in zip(sources, agree, strict=True)}
    for n, draws in few.items():
        table[f"{FEW}{n}.0"] = np.nan  # where there are too few rows to draw from
        for draw, rows in enumerate(draws):
            table[f"{FEW}{n}.{draw}"] = column_auc(X_b[rows], b.train.labels[rows], sign)
    table["training_auc"] = column_auc(X_b, b.train.labels, sign)
    table["auc"] = column_auc(candidates.unseen[b.name], b.test.labels, sign)
    return _explained(pd.DataFrame(table))


def _density(X: sparse.csr_array) -> Floats:
    return np.asarray((X > 0).sum(axis=0) / X.shape[0], dtype=np.float64)


def _scaled(X_a: sparse.csr_array, X_b: sparse.csr_array) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Both divided by A's RMS, so that distances of different columns compare."""
    rms = np.sqrt(np.asarray(X_a.astype(np.float64).power(2).sum(axis=0)) / X_a.shape[0])
    factor = sparse.diags_array(np.divide(1.0, rms, out=np.zeros_like(rms), where=rms > 0))
    return sparse.csr_array(X_a @ factor), sparse.csr_array(X_b @ factor)


def with_consensus(table: pd.DataFrame, left_out: Collection[str] = ()) -> pd.DataFrame:
    """The table with what several sources say, as if those left out did not exist.

    Adds `agreement`, `agreement_sources`, `consensus_mean` and `consensus_min`. B's labels are in no column that
    these come from.
    """
    held, agrees = (
        table[[column for column in starting(table, stem) if column.removeprefix(stem) not in left_out]]
        for stem in (HELD, AGREES)
    )
    own = np.full(len(table), np.nan)
    for a in table["train"].unique():
        own = np.where(table["train"] == a, table[AGREES + a], own)
    return table.assign(
        consensus_mean=held.mean(axis=1) if len(held.columns) else np.nan,
        consensus_min=held.min(axis=1) if len(held.columns) else np.nan,
        agreement=own,
        agreement_sources=agrees.mean(axis=1) if len(agrees.columns) else np.nan,
    )


def starting(table: pd.DataFrame, stem: str) -> list[str]:
    """The columns whose names start with `stem`."""
    return [str(column) for column in table if str(column).startswith(stem)]


def _explained(table: pd.DataFrame) -> pd.DataFrame:
    """Adds `reason`: why a row's numbers are missing, or its AUC that of ties."""
    probe = ~table["origin"].isin(FEATURES).to_numpy()
    causes = {
        "agreement: silent or constant on B's training rows": table["agreement_target"].isna().to_numpy(),
        "similarity: no direction is known": table["decoder_cosine"].isna().to_numpy(),
        "selection_frequency: not resampled": table["selection_frequency"].isna().to_numpy() & ~probe,
        "density, selection_frequency: a probe has none": probe,
        "consensus: no labelled source beside A and B": np.full(len(table), not starting(table, HELD)),
        "separability: too few groups": table["separability"].isna().to_numpy(),
        "few: fewer rows of B than labels": table[starting(table, FEW)].isna().any(axis=1).to_numpy(),
        "auc: one class": table["auc"].isna().to_numpy(),
    }
    parts = [np.where(mask, cause, "") for cause, mask in causes.items()]
    return table.assign(reason=["; ".join(filter(None, each)) for each in zip(*parts, strict=True)])


def separability(a: Rows, b: Rows, k: int, seed: int) -> float:
    """AUC of telling A's rows from B's, by logistic regression with k-fold cross-validation by group.

    Groups of one name share a fold, so that the same rows under two names give 0.5 and not a memory of each other.

    Returns:
        NaN where a dataset has fewer than k groups.
    """
    a, b = (part.take(np.arange(min(len(part), SEPARATION_ROWS))) for part in (a, b))
    of_b = np.repeat([0, 1], [len(a), len(b)])
    both = Rows(np.concatenate([a.X, b.X]), of_b, np.concatenate([a.groups, b.groups]))
    try:
        folds = list(both.folded(k, seed))
    except UserError:
        return np.nan
    fits = [fit_path(rest.X, rest.labels, [SEPARATION_C], "standard")[0] for rest, _ in folds]
    areas = [auc(decision_function(test.X, fit), test.labels) for fit, (_, test) in zip(fits, folds, strict=True)]
    return float(np.mean(areas))
