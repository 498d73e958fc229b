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
from sae_transfer.probing.probe import Probe, decision_function
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.sae_probes import sparse_n
from sae_transfer.results.schema import REASON, Column, Table, estimate, integers, numbers, texts
from sae_transfer.results.transfer_table import TRANSFER
from sae_transfer.stats import roc
from sae_transfer.stats.correlations import correlations
from sae_transfer.stats.intervals import estimates
from sae_transfer.stats.logistic import fit_path

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

CANDIDATES = 12  # features of the other SAE that may become children: the most correlated
MOST = 5  # children
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
        *integers(needed=f"the fewest children whose cv_auc is within {TOLERANCE} of the parent's; empty: none"),
        *texts(fate=f"kept: one child is enough; split: more are needed; lost: {MOST} do not recover the parent"),
        *numbers(
            cv_auc="out-of-fold AUC on A's training rows of these children",
            parent_cv_auc="the same of the parent",
        ),
        *TRANSFER.pick("n_train", "n_test", "n_groups"),
        *estimate("auc", "AUC of the children on B's test rows", heading="of the child"),
        *estimate("parent_auc", "AUC of the parent on B's test rows", heading="AUC of the feature"),
        *estimate("delta", "auc less parent_auc, on the same resamples", heading="difference", signed=True),
        Column("recovered", "flag", f"whether delta is at least -{TOLERANCE}"),
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
    parent_cv_auc: float
    children: list[Probe]  # of 1, 2, ... features
    cv_auc: list[float]

    @property
    def needed(self) -> int | None:
        """How many children recover the parent's cv_auc."""
        enough = (k for k, area in enumerate(self.cv_auc, 1) if area >= self.parent_cv_auc - TOLERANCE)
        return next(enough, None)

    @property
    def fate(self) -> str:
        return "lost" if self.needed is None else "kept" if self.needed == 1 else "split"


def family(parent: Probe, own: Rows, other: Rows, n_folds: int, seed: int) -> Family:
    """Greedy forward selection of the parent's children on A's training rows.

    Candidates are the features of the other SAE whose activations there correlate most with the parent's. Each step
    takes the one that raises the out-of-fold AUC of a logistic regression most (ties: the more correlated).

    Args:
        parent: A's best 1-sparse probe.
        own: A's training rows in the parent's SAE.
        other: the same rows in the other SAE.
        n_folds: of the cross-validation, by group.
        seed: of the folds.
    """
    fold, activations = own.folds(n_folds, seed), own.X[:, parent.feature_ids]
    together = correlations(activations, other.X)[0]
    order = np.argsort(-np.nan_to_num(together, nan=-1.0), kind="stable")
    candidates = order[together[order] > 0][:CANDIDATES]
    columns = other.X[:, candidates].toarray()
    taken: list[int] = []
    areas: list[float] = []
    while len(taken) < min(MOST, len(candidates)):
        left = [i for i in range(len(candidates)) if i not in taken]
        scores = [_cv_auc(columns[:, [*taken, i]], own.labels, fold) for i in left]
        best = int(np.argmax(np.round(scores, 12)))
        taken.append(left[best])
        areas.append(scores[best])
    children = [sparse_n(other, candidates[taken[: k + 1]], 1.0, selected=False) for k in range(len(taken))]
    return Family(parent, _cv_auc(activations.toarray(), own.labels, fold), children, areas)


def _cv_auc(X: Floats, labels: NDArray[np.int_], fold: Ints) -> float:
    areas = []
    for number in np.unique(fold):
        unseen = fold == number
        fit = fit_path(X[~unseen], labels[~unseen], [1.0], "rms")[0]
        areas.append(roc.auc(decision_function(X[unseen], fit), labels[unseen]))
    return float(np.mean(areas))


def split_rows(found: Family, X: sparse.csr_array, Y: sparse.csr_array, test: Evaluation) -> Iterator[dict[str, Any]]:
    """What parent and children are worth on B, a row for each number of children.

    Args:
        found: from A's training rows.
        X: [n, d_sae], B's test rows in the parent's SAE.
        Y: [n, d_other], the same rows in the other SAE.
        test: those rows.
    """
    parent, groups = bootstrapped_auc(found.parent.score(X), test), test.effective_groups
    of_a = {"parent_id": int(np.asarray(found.parent.feature_ids)[0]), "parent_cv_auc": found.parent_cv_auc}
    of_b = {"n_test": len(test.labels), "n_groups": test.n_groups}
    about = of_a | of_b | {"needed": found.needed, "fate": found.fate}
    if not found.children:
        yield about | {"children": 0, "parent_auc": parent.auc, "reason": "auc: no feature correlates with the parent"}
    for child, area in zip(found.children, found.cv_auc, strict=True):
        own = bootstrapped_auc(child.score(Y), test)
        delta = own.minus(parent, groups)
        areas = {"auc": own.interval(groups), "parent_auc": parent.interval(groups), "delta": delta}
        recovered = None if np.isnan(delta.value) else delta.value >= -TOLERANCE
        row = {"children": child.n_features, "child_ids": child.feature_text, "cv_auc": area, "recovered": recovered}
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
