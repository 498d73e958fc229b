"""Feature splitting: what becomes of one SAE's feature in another SAE on the same layer. Pure functions on arrays.

Source of the question: wider SAEs split features (Bricken et al. 2023, "Towards Monosemanticity"), and arXiv 2502.19964
asks what width and training objective do to transfer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer import metrics
from sae_transfer.features import Directions
from sae_transfer.logistic import rms_scaled
from sae_transfer.probes import Floats, Ints, Probe, Training, sparse_n
from sae_transfer.similarity import cosine
from sae_transfer.splits import folds
from sae_transfer.transfer import TestSet, reference

# splitting.csv: one row a (sae, other, A, B, number of children). The parent is A's best single feature in `sae`; its
# children are features of `other`.
#   children, child_ids  how many children the probe on A has, in the order in which forward selection took them
#   cv_auc, parent_cv_auc   out-of-fold AUC on A's training rows of these features and of the parent
#   needed               the smallest number of children whose cv_auc is within TOLERANCE of the parent's; empty: none
#   fate                 kept: one child is enough; split: more are needed; lost: MOST do not recover it
#   auc, parent_auc      on B's test rows; delta: their difference, on the same resamples. Each with _low, _high
#   recovered            whether delta is above -TOLERANCE
SPLITTING = (
    "layer sae other width other_width objective other_objective train test in_domain parent_id children child_ids "
    "needed fate cv_auc parent_cv_auc n_train n_test n_groups auc auc_low auc_high parent_auc parent_auc_low "
    "parent_auc_high delta delta_low delta_high recovered reason"
).split()
# matches.csv: one row a (sae, other, feature), for the top features of every A.
#   trains               the datasets among whose top K the feature is
#   nearest, cosine      the feature of `other` whose decoder direction has the highest cosine with this one's
#   partner, correlation the feature of `other` whose activations correlate most, over the training rows of all datasets
#   contained            the share of the partner's firing rows on which this feature fires too
#   same                 whether both are one feature
MATCHES = "layer sae other feature trains nearest cosine partner correlation contained same reason".split()
CANDIDATES = 12  # features of the other SAE that may become children: the most correlated
MOST = 5  # children
TOLERANCE = 0.01  # of AUC


def correlations(X: sparse.csr_array, Y: sparse.csr_array) -> Floats:
    """Pearson correlation of every column of X [n, p] with every column of Y [n, m]: [p, m]; NaN for a constant column.

    Only the non-zeros are worked through; the result is dense, so give few columns of X at a time.
    """
    n, X, Y = X.shape[0], X.astype(np.float64), Y.astype(np.float64)
    products = np.asarray((X.T @ Y).toarray())
    (mean_x, spread_x), (mean_y, spread_y) = _moments(X), _moments(Y)
    size = np.outer(spread_x, spread_y)
    covariance = products / n - np.outer(mean_x, mean_y)
    result: Floats = np.divide(covariance, size, out=np.full(size.shape, np.nan), where=size > 0)
    return result.clip(-1, 1)


def _moments(X: sparse.csr_array) -> tuple[Floats, Floats]:
    mean = np.asarray(X.mean(axis=0)).ravel()
    variance = np.asarray(X.multiply(X).mean(axis=0)).ravel() - mean**2
    return mean, np.sqrt(np.where(variance > 1e-12 * (mean**2 + 1e-300), variance, 0))


def match_rows(
    features: Mapping[int, str], X: sparse.csr_array, Y: sparse.csr_array, own: Directions, other: Directions
) -> list[dict[str, Any]]:
    """What is nearest to some features of one SAE among those of another.

    Args:
        features: ids in the first SAE, each with the datasets that it is a top feature of.
        X: [n, d_sae] activations of the first SAE, over training rows.
        Y: [n, d_other] of the other, the same rows.
        own, other: the two SAEs' directions.
    """
    ids, known = np.array(list(features), dtype=np.int64), other.feature_ids
    if not len(known):
        return [{"feature": f, "trains": t, "reason": "nearest: no feature fires"} for f, t in features.items()]
    cosines = cosine(other.decoder, own.decoder[np.searchsorted(own.feature_ids, ids)]).T
    partners = Y[:, known]
    together = correlations(X[:, ids], partners)
    shared = ((X[:, ids] > 0).T.astype(float) @ (partners > 0).astype(float)).toarray()
    firing = np.bincount(partners.indices, partners.data > 0, len(known))
    rows = []
    for i, feature in enumerate(ids):
        near, partner = (_best(values[i]) for values in (cosines, together))
        row: dict[str, Any] = {"feature": int(feature), "trains": features[int(feature)], "reason": ""}
        if near is not None:
            row |= {"nearest": int(known[near]), "cosine": cosines[i, near]}
        if partner is None:
            rows.append(row | {"reason": "partner: the activations do not vary"})
            continue
        row |= {"partner": int(known[partner]), "correlation": together[i, partner], "same": near == partner}
        rows.append(row | {"contained": shared[i, partner] / firing[partner] if firing[partner] else np.nan})
    return rows


def _best(values: Floats) -> int | None:
    return None if np.isnan(values).all() else int(np.nanargmax(values))


@dataclass(frozen=True)
class Family:
    """A's best single feature in one SAE, and growing sets of children in another that stand in for it."""

    parent: Probe
    parent_cv_auc: float
    children: list[Probe]  # of 1, 2, ... features
    cv_auc: list[float]

    @property
    def needed(self) -> int | None:
        """How many children recover the parent's cv_auc."""
        enough = [k for k, area in enumerate(self.cv_auc, 1) if area >= self.parent_cv_auc - TOLERANCE]
        return enough[0] if enough else None

    @property
    def fate(self) -> str:
        return "lost" if self.needed is None else "kept" if self.needed == 1 else "split"


def family(parent: Probe, home: Training, other: Training, n_folds: int, seed: int) -> Family:
    """Greedy forward selection of the parent's children on A's training rows.

    Candidates are the features of the other SAE whose activations there correlate most with the parent's. Each step
    takes the one that raises the out-of-fold AUC of a logistic regression most (ties: the more correlated).

    Args:
        parent: A's best 1-sparse probe.
        home: A's training rows in the parent's SAE.
        other: the same rows in the other SAE.
        n_folds: of the cross-validation, by group.
        seed: of the folds.
    """
    fold = folds(home.labels, list(home.groups), n_folds, seed)
    activations = home.X[:, parent.feature_ids]
    candidates = _candidates(activations, other.X)
    columns = other.X[:, candidates].toarray()
    taken: list[int] = []
    areas: list[float] = []
    while len(taken) < min(MOST, len(candidates)):
        left = [i for i in range(len(candidates)) if i not in taken]
        scores = [_cv_auc(columns[:, [*taken, i]], home.labels, fold) for i in left]
        best = int(np.argmax(np.round(scores, 12)))
        taken.append(left[best])
        areas.append(scores[best])
    children = [sparse_n(other, candidates[taken[: k + 1]], 1.0, selected=False) for k in range(len(taken))]
    return Family(parent, _cv_auc(activations.toarray(), home.labels, fold), children, areas)


def _candidates(activations: sparse.csr_array, others: sparse.csr_array) -> Ints:
    together = correlations(activations, others)[0]
    order = np.argsort(-np.nan_to_num(together, nan=-1.0), kind="stable")
    return np.asarray(order[together[order] > 0][:CANDIDATES], dtype=np.int64)


def _cv_auc(X: Floats, labels: NDArray[np.int_], fold: Ints) -> float:
    areas = []
    for number in np.unique(fold):
        unseen = fold == number
        weights, bias = rms_scaled(X[~unseen], labels[~unseen], [1.0])[0]
        areas.append(metrics.auc(X[unseen] @ weights + bias, labels[unseen]))
    return float(np.mean(areas))


def split_rows(found: Family, X: sparse.csr_array, Y: sparse.csr_array, test: TestSet) -> Iterator[dict[str, Any]]:
    """What parent and children are worth on B, a row for each number of children.

    Args:
        found: from A's training rows.
        X: [n, d_sae], B's test rows in the parent's SAE.
        Y: [n, d_other], the same rows in the other SAE.
        test: those rows.
    """
    parent = reference(found.parent.score(X), test)
    about: dict[str, Any] = {"parent_id": int(np.asarray(found.parent.feature_ids)[0])}
    about["parent_cv_auc"] = found.parent_cv_auc
    about |= {"needed": found.needed, "fate": found.fate, "n_groups": test.n_groups, "n_test": len(test.labels)}
    if not found.children:
        yield about | {"children": 0, "parent_auc": parent.auc, "reason": "auc: no feature correlates with the parent"}
    for k, (child, area) in enumerate(zip(found.children, found.cv_auc, strict=True), 1):
        own = reference(child.score(Y), test)
        numbers = {
            "auc": metrics.interval(own.auc, own.resampled, test.effective_groups),
            "parent_auc": metrics.interval(parent.auc, parent.resampled, test.effective_groups),
            "delta": metrics.difference_interval(
                own.auc, parent.auc, own.resampled, parent.resampled, test.effective_groups
            ),
        }
        row: dict[str, Any] = {"children": k, "cv_auc": area}
        row["child_ids"] = " ".join(str(feature) for feature in np.asarray(child.feature_ids))
        for name, one in numbers.items():
            row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        row["recovered"] = row["delta"] >= -TOLERANCE if not np.isnan(row["delta"]) else None
        yield (
            about | row | {"reason": "; ".join(f"{name}: {one.reason}" for name, one in numbers.items() if one.reason)}
        )


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """The rows under these columns; a missing count or id is empty and leaves the others whole numbers."""
    made = pd.DataFrame(rows, columns=list(columns))
    whole = [name for name in ("needed", "nearest", "partner") if name in made]
    return made.astype(dict.fromkeys(whole, "Int64"))


def answer(splitting: pd.DataFrame) -> list[str]:
    """Does a feature split, and does that cost transfer? One sentence a pair of SAEs."""
    said = []
    for (sae, other), rows in splitting.groupby(["sae", "other"], sort=False):
        fates = rows.drop_duplicates("train")["fate"].value_counts()
        away = rows[~rows["in_domain"].astype(bool)]
        sentence = f"{sae} in {other}: best features {', '.join(f'{name} {number}' for name, number in fates.items())}"
        for name, chosen in (
            ("one child", away["children"] == 1),
            ("what is needed", away["children"] == away["needed"]),
        ):
            part = away[chosen.fillna(False).astype(bool)]
            if len(part):
                worse, better = int((part["delta_high"] < 0).sum()), int((part["delta_low"] > 0).sum())
                sentence += (
                    f"; out of domain {name} changes AUC by {part['delta'].mean():+.3f} on average (of {len(part)} "
                    f"pairs clearly worse in {worse}, better in {better})"
                )
        said.append(sentence + ".")
    return said or ["Feature splitting needs two SAEs on one layer."]
