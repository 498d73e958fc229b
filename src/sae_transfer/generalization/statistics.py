"""What can be known of a candidate of A before it is used on B. All of it comes from training rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.generalization.candidates import FEATURES, Candidates, Stream
from sae_transfer.generalization.distances import distances
from sae_transfer.generalization.domains import Domain, others
from sae_transfer.logistic import standardised
from sae_transfer.metrics import auc
from sae_transfer.probes import Training
from sae_transfer.records import UserError, generator
from sae_transfer.search import column_auc
from sae_transfer.similarity import cosine, mahalanobis_cosine
from sae_transfer.splits import folds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEPARATION_C = 0.01
SEPARATION_ROWS = 500  # of each dataset: domains are told apart by far fewer
HELD, AGREES, FEW = "auc_on.", "agreement_with.", "few_"  # columns, one a domain or a draw

USES_TARGET = {
    "cv_auc": "no",
    "density_train": "no",
    "selection_frequency": "no",
    "decoder_cosine": "no",
    "mahalanobis_train": "no",
    "consensus_mean": "no",
    "consensus_min": "no",
    "density_test": "rows",
    "density_shift": "rows",
    "wasserstein": "rows",
    "ks": "rows",
    "mahalanobis_test": "rows",
    "agreement": "rows",
    "agreement_sources": "rows",
    "separability": "rows",
    "mahalanobis_target": "labels",
    "agreement_target": "labels",
}
"""The statistics of a candidate of A for B, and what each sees of B: nothing, rows without labels, or labels.

cv_auc               cross-validated AUC on A
density_train        share of A's rows on which it fires; density_test: of B's; density_shift: |difference| of the two
selection_frequency  share of A's bootstrap resamples in which it is among the K best
decoder_cosine       cosine of its direction to A's residual probe; mahalanobis_train, _test: under A's, B's covariance
consensus_mean       mean AUC, with A's sign, on the training rows of the sources other than A and B; _min: the lowest
wasserstein, ks      distance between its values on A (divided by their RMS) and on B
agreement            correlation, over B's rows, of its scores with those of A's residual probe
agreement_sources    the same with the residual probe of every source other than B, mean
separability         cross-validated AUC of telling A's rows from B's in the residual stream; one number a pair
mahalanobis_target   the bound: Mahalanobis cosine, under B's covariance, to the residual probe trained on B's labels
agreement_target     the same with the candidate's own scores: their correlation with that probe's over B's rows
few_<n>.<draw>       AUC on n labelled rows of B, one column a draw (labels)
"""
LABEL_FREE = [name for name, sees in USES_TARGET.items() if sees != "labels"]


@dataclass(frozen=True)
class Few:
    """Draws of a few labelled rows of B: `rows` by the number of labels, each [draws, n] of places in B's train."""

    rows: Mapping[int, Ints]


def few_labels(b: Domain, sizes: Sequence[int], draws: int, seed: int) -> Few:
    """Half of each label, without replacement; no draw of a size that B's training rows do not hold."""
    by_label = [np.flatnonzero(b.train.labels == label) for label in (0, 1)]
    found = {}
    for n in sizes:
        enough = n // 2 <= min(map(len, by_label))
        rngs = [generator(seed, "few labels", b.name, n, draw) for draw in range(draws if enough else 0)]
        drawn = [np.concatenate([rng.choice(rows, n // 2, replace=False) for rows in by_label]) for rng in rngs]
        found[n] = np.array(drawn, dtype=np.int64).reshape(-1, n)
    return Few(found)


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
    reference, direction = streams[a.name].residual.weights[None], candidates.direction
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
        "mahalanobis_train": mahalanobis_cosine(direction, reference, streams[a.name].covariance)[:, 0],
        "mahalanobis_test": mahalanobis_cosine(direction, reference, streams[b.name].covariance)[:, 0],
        "separability": separability,
        "mahalanobis_target": mahalanobis_cosine(
            direction, streams[b.name].residual.weights[None], streams[b.name].covariance
        )[:, 0],
    }
    sources = others(domains, b)
    for c in others(domains, a, b):
        table[HELD + c.name] = column_auc(candidates.train[c.name], c.train.labels, sign)
    scores = np.array([streams[c.name].residual.score(streams[b.name].rows) for c in [*sources, b]])
    *agree, table["agreement_target"] = sign * correlations(X_b, scores)
    table |= {AGREES + c.name: row for c, row in zip(sources, agree, strict=True)}
    for n, draws in few.rows.items():
        table[f"{FEW}{n}.0"] = np.nan  # where there are too few rows to draw from
        for draw, rows in enumerate(draws):
            table[f"{FEW}{n}.{draw}"] = column_auc(X_b[rows], b.train.labels[rows], sign)
    table["auc"] = column_auc(candidates.unseen[b.name], b.test.labels, sign)
    return _explained(pd.DataFrame(table))


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """What is known of all pairs; with a single domain there are none, and the table is empty."""
    if tables:
        return pd.concat(tables, ignore_index=True)
    return pd.DataFrame(columns=["train", "test", "candidate", "origin", *USES_TARGET, "auc", "reason"])


def _density(X: sparse.csr_array) -> Floats:
    return np.asarray((X > 0).sum(axis=0) / X.shape[0], dtype=np.float64)


def _scaled(X_a: sparse.csr_array, X_b: sparse.csr_array) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Both divided by A's RMS, so that distances of different columns compare."""
    rms = np.sqrt(np.asarray(X_a.astype(np.float64).power(2).sum(axis=0)) / X_a.shape[0])
    factor = sparse.diags_array(np.divide(1.0, rms, out=np.zeros_like(rms), where=rms > 0))
    return sparse.csr_array(X_a @ factor), sparse.csr_array(X_b @ factor)


def correlations(X: sparse.csr_array, scores: Floats) -> Floats:
    """Pearson's correlation of each row of `scores` [k, n] with each column of X [n, m]: [k, m], NaN if constant."""
    X = X.astype(np.float64)
    n, centred = X.shape[0], scores - scores.mean(axis=1, keepdims=True)
    sums, squares = (np.asarray(Y.sum(axis=0), dtype=np.float64) for Y in (X, X.power(2)))
    spread = np.outer(np.sqrt((centred**2).sum(axis=1)), np.sqrt(np.maximum(squares - sums**2 / n, 0)))
    together = np.asarray((X.T @ centred.T).T, dtype=np.float64)
    tiny = 1e-7 * np.outer(np.sqrt((scores**2).sum(axis=1)), np.sqrt(squares))  # rounding gives constants a spread
    found: Floats = np.divide(together, spread, out=np.full(spread.shape, np.nan), where=spread > tiny)
    return found


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
    silent = (table["density_test"] == 0).to_numpy()
    causes = {
        "agreement: silent on B's training rows": silent,
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


def separability(a: Training, b: Training, k: int, seed: int) -> float:
    """AUC of telling A's rows from B's, by logistic regression with k-fold cross-validation by group.

    Groups of one name share a fold, so that the same rows under two names give 0.5 and not a memory of their twins.

    Returns:
        NaN where a dataset has fewer than k groups.
    """
    a, b = (part.rows(np.arange(min(len(part), SEPARATION_ROWS))) for part in (a, b))
    X = np.concatenate([a.X, b.X])
    of_b = np.repeat([0, 1], [len(a), len(b)])
    try:
        fold = folds(of_b, list(np.concatenate([a.groups, b.groups])), k, seed)
    except UserError:
        return np.nan
    areas = []
    for held_out in range(k):
        rest = fold != held_out
        weights, bias = standardised(X[rest], of_b[rest], [SEPARATION_C])[0]
        areas.append(auc(X[~rest] @ weights + bias, of_b[~rest]))
    return float(np.mean(areas))
