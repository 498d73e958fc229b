"""Feature splitting: what becomes of one SAE's feature in another SAE on the same layer.

Source of the question: wider SAEs split features (Bricken et al. 2023, "Towards Monosemanticity"), and arXiv 2502.19964
asks what width and training objective do to transfer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.analyses.analysis import Analysis, by_sae
from sae_transfer.core.arrays import Floats, Ints
from sae_transfer.core.space import Space
from sae_transfer.probing.evaluations import Evaluation, bootstrapped_auc
from sae_transfer.probing.kinds import selected
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import sparse_n
from sae_transfer.results.schema import REASON, Column, Table, estimate, integers, numbers, texts
from sae_transfer.results.transfer_table import TRANSFER
from sae_transfer.stats.intervals import estimates

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

CANDIDATES = 12  # features of the other SAE that may become children: the most correlated
MOST = 5  # children
REBUILT = 0.8  # the share of the variance from which on children stand for their parent
TOLERANCE = 0.01  # of AUC
TABLE = Table(
    "splitting",
    "one row a (sae, other, A, B, number of children): A's best single feature in sae and its children in other",
    (
        *TRANSFER.pick("layer", "sae"),
        *texts(other="another SAE on the same layer"),
        *integers(width="features of sae", other_width="features of other"),
        *texts(objective="what sae was trained with", other_objective="what other was trained with"),
        *TRANSFER.pick("train", "test", "in_domain"),
        Column("parent_id", "integer", "the feature of sae", heading="feature"),
        *integers(children="how many children the probe on A has"),
        Column("child_ids", "ids", "the children, in the order in which forward selection took them", heading="child"),
        *integers(needed=f"the fewest children with `rebuilt` of at least {REBUILT}; empty: none"),
        *texts(fate=f"kept: one child is enough; split: more are needed; lost: {MOST} do not rebuild the feature"),
        *numbers(
            rebuilt="share of the feature's variance within the classes that these children explain on A's training "
            "rows, out of fold",
        ),
        *TRANSFER.pick("n_train", "n_test", "n_groups"),
        *estimate("auc", "AUC of the children on B's test rows", heading="of the child"),
        *estimate("parent_auc", "AUC of the parent on B's test rows", heading="AUC of the feature"),
        *estimate("delta", "auc less parent_auc, on the same resamples", heading="difference", signed=True),
        Column("label_recovered", "flag", f"whether delta is at least -{TOLERANCE}: the label, not the feature"),
        REASON,
    ),
)


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one SAE in every other on its layer."""
    sae, rows = study.space(part), []
    for other in neighbours(study, sae):
        about = {"layer": sae.layer, "sae": sae.name, "other": other.name}
        for prefix, one in (("", sae), ("other_", other)):
            about[f"{prefix}width"] = study.health(one, study.datasets[0]).width
            about[f"{prefix}objective"] = study.directions(one).objective
        for a in study.datasets:
            train = study.rows(sae, a)
            parent = selected(study.full_probes(sae, a), "sparse_1")
            found = family(parent, train, study.rows(other, a), study.params.probe.n_folds, study.seed)
            for b in study.datasets:
                where = {"train": a, "test": b, "in_domain": a == b, "n_train": len(train)}
                X, Y = (study.rows(one, b, "unseen").X for one in (sae, other))
                rows += [about | where | row for row in split_rows(found, X, Y, study.evaluation(b, "unseen"))]
    return TABLE.frame(rows).astype({"needed": "Int64"})


def neighbours(study: "Study", sae: Space) -> list[Space]:
    """The other SAEs on the same layer."""
    return [other for other in study.saes if other.layer == sae.layer and other != sae]


@dataclass(frozen=True)
class Family:
    """A's best single feature in one SAE, and growing sets of children in another that stand in for it."""

    parent: Probe
    children: list[Probe]  # of 1, 2, ... features
    rebuilt: list[float]

    @property
    def needed(self) -> int | None:
        """How many children rebuild the parent."""
        return next((k for k, share in enumerate(self.rebuilt, 1) if share >= REBUILT), None)

    @property
    def fate(self) -> str:
        return "lost" if self.needed is None else "kept" if self.needed == 1 else "split"


def family(parent: Probe, own: Rows, other: Rows, n_folds: int, seed: int) -> Family:
    """Greedy forward selection of the parent's children on A's training rows.

    Children are chosen by how well they rebuild the parent's activation within either class, not by the label: every
    detector of the label correlates with every other one through it. Candidates are the features of the other SAE that
    correlate most with the parent within the classes. Each step takes the one that raises `rebuilt_share` most (ties:
    the more correlated).

    Args:
        parent: A's best 1-sparse probe.
        own: A's training rows in the parent's SAE.
        other: the same rows in the other SAE.
        n_folds: of the cross-validation, by group.
        seed: of the folds.
    """
    fold, activation = own.folds(n_folds, seed), own.X[:, parent.feature_ids].toarray().ravel().astype(np.float64)
    together = within_classes(activation, other.X, own.labels)
    order = np.argsort(-np.nan_to_num(together, nan=-1.0), kind="stable")
    candidates = order[together[order] > 0][:CANDIDATES]
    columns = other.X[:, candidates].toarray().astype(np.float64)
    taken: list[int] = []
    shares: list[float] = []
    while len(taken) < min(MOST, len(candidates)):
        left = [i for i in range(len(candidates)) if i not in taken]
        found = [rebuilt_share(activation, columns[:, [*taken, i]], own.labels, fold) for i in left]
        best = int(np.argmax(np.round(found, 9)))
        taken.append(left[best])
        shares.append(found[best])
    children = [sparse_n(other, candidates[taken[: k + 1]], 1.0, selected=False) for k in range(len(taken))]
    return Family(parent, children, shares)


def within_classes(activation: Floats, Y: sparse.csr_array, labels: NDArray[np.int_]) -> Floats:
    """Correlation [m] of an activation [n] with the columns of Y [n, m] once both have lost their classes' means.

    NaN for a column that is constant in either class.
    """
    together, of_own, of_other = np.zeros(Y.shape[1]), 0.0, np.zeros(Y.shape[1])
    for label in np.unique(labels):
        x, part = activation[labels == label], Y[labels == label].astype(np.float64)
        mean = np.asarray(part.mean(axis=0)).ravel()
        together += part.T @ (x - x.mean())
        of_own += float(((x - x.mean()) ** 2).sum())
        of_other += np.asarray(part.multiply(part).sum(axis=0)).ravel() - len(x) * mean**2
    size = np.sqrt(of_own * of_other.clip(0))
    found: Floats = np.divide(together, size, out=np.full(len(size), np.nan), where=size > 1e-9 * max(of_own, 1e-300))
    return found


def rebuilt_share(activation: Floats, children: Floats, labels: NDArray[np.int_], fold: Ints) -> float:
    """The share of an activation's variance within the classes that a linear combination of children explains.

    Out of fold: 1 - (squared error given label and children) / (squared error given the label alone), the partial R2.

    Args:
        activation: [n].
        children: [n, k].
        labels: [n].
        fold: [n].

    Returns:
        At most 1; minus infinity where the activation does not vary within a class.
    """
    by_label = np.c_[np.ones(len(labels)), labels]
    errors = [_unseen_error(activation, X, fold) for X in (np.c_[by_label, children], by_label)]
    return float(1 - errors[0] / errors[1]) if errors[1] > 1e-12 * float((activation**2).sum()) else -np.inf


def _unseen_error(y: Floats, X: Floats, fold: Ints) -> float:
    """The squared error of least squares, each fold predicted from the others."""
    total = 0.0
    for number in np.unique(fold):
        unseen = fold == number
        weights = np.linalg.lstsq(X[~unseen], y[~unseen])[0]
        total += float(((y[unseen] - X[unseen] @ weights) ** 2).sum())
    return total


def split_rows(found: Family, X: sparse.csr_array, Y: sparse.csr_array, test: Evaluation) -> Iterator[dict[str, Any]]:
    """What parent and children are worth on B, a row for each number of children.

    Args:
        found: from A's training rows.
        X: [n, d_sae], B's test rows in the parent's SAE.
        Y: [n, d_other], the same rows in the other SAE.
        test: those rows.
    """
    parent, groups = bootstrapped_auc(found.parent.score(X), test), test.effective_groups
    about = {"parent_id": int(np.asarray(found.parent.feature_ids)[0]), "needed": found.needed, "fate": found.fate}
    about |= {"n_test": len(test.labels), "n_groups": test.n_groups}
    if not found.children:
        yield about | {"children": 0, "parent_auc": parent.auc, "reason": "auc: no feature correlates with the parent"}
    for child, share in zip(found.children, found.rebuilt, strict=True):
        own = bootstrapped_auc(child.score(Y), test)
        delta = own.minus(parent, groups)
        areas = {"auc": own.interval(groups), "parent_auc": parent.interval(groups), "delta": delta}
        recovered = None if np.isnan(delta.value) else delta.value >= -TOLERANCE
        row = {"children": child.n_features, "child_ids": child.feature_text, "rebuilt": share}
        row["label_recovered"] = recovered
        yield about | row | estimates(areas)


def summarise(splitting: pd.DataFrame) -> list[str]:
    """Does a feature split, and does that cost transfer? One sentence a pair of SAEs."""
    told = []
    for (sae, other), rows in splitting.groupby(["sae", "other"], sort=False):
        fates = rows.drop_duplicates("train")["fate"].value_counts()
        away = rows[~rows["in_domain"]]
        sentence = f"{sae} in {other}: best features {', '.join(f'{name} {number}' for name, number in fates.items())}"
        needed = (away["children"] == away["needed"]).fillna(False).astype(bool)
        for name, part in (("one child", away[away["children"] == 1]), ("what is needed", away[needed])):
            if len(part):
                worse, better = int((part["delta_high"] < 0).sum()), int((part["delta_low"] > 0).sum())
                sentence += (
                    f"; out of domain {name} changes AUC by {part['delta'].mean():+.3f} on average (of {len(part)} "
                    f"pairs clearly worse in {worse}, better in {better})"
                )
        told.append(sentence + ".")
    return told


ANALYSIS = Analysis(TABLE, compute, by_sae)
