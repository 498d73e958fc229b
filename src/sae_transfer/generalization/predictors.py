"""How well a statistic of a candidate tells its AUC on B, alone and combined, on domains that it has not seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from sae_transfer.generalization.candidates import FEATURES
from sae_transfer.generalization.statistics import FEW, LABEL_FREE, USES_TARGET, starting, with_consensus

Floats = NDArray[np.float64]
Twins = Mapping[str, frozenset[str]]  # by domain name, all names that stand for the same rows, its own included

KINDS = {"features": FEATURES, "sparse_probes": ("sparse_probe",), "residual_probes": ("residual_probe",)}
COMBINED, TAB = "combined", "\t"
MIN_CANDIDATES = 8  # below, a rank correlation says nothing
RIDGE = 1.0
CUT = 3.0
TINY = 1e-12

COLUMNS = (
    "candidates predictor uses_target scope train test held_out role spearman spearman_min spearman_max r2 "
    "rmse n_candidates n_pairs n_domains reason"
).split()
"""How well each predictor tells the AUC on B's test rows. One row a (candidates, predictor, scope, ...).

candidates   features (A's top 100 and 200 random ones), sparse_probes (A's sparse_1 and sparse_n) or residual_probes
             (A's residual and mean_difference, the same for every SAE of a layer)
predictor    a statistic of `statistics.USES_TARGET`, few_<n> (mean over the draws), or combined: a ridge regression on
             all that need no label of B, fitted on the pairs without B (scope held_out: without the domain held_out)
uses_target  what it sees of B's training rows: no, rows (without labels), labels
scope        pair: Spearman over the candidates of one (A, B), a point
             within: the mean of those points, with their lowest and highest (a range, no interval)
             across: over all candidates of all pairs at once; r2 is Pearson's correlation squared
             held_out: a ridge regression on the predictor, fitted on the pairs that do not contain the domain held_out,
             judged on those where it is the target or the source (role): mean, lowest and highest Spearman of the
             pairs, r2 = 1 - SSE/SST, which is below 0 where predicting their mean would be better, and rmse, the
             root mean square error of the AUC: where all candidates do equally well r2 says little, rmse still does
n_domains    how many domains the number rests on; candidates of one pair are no independent witnesses
"""


def predictors(table: pd.DataFrame, twins: Twins) -> pd.DataFrame:
    """Scores every predictor on a table of candidates, with columns `COLUMNS`.

    Args:
        table: what `statistics` gave, of all pairs, with a column `predicted` (see `predicted_auc`).
        twins: all names of each domain, of the whole study.
    """
    rows: list[dict[str, Any]] = []
    for kind, part in _kinds(table[table["auc"].notna()]):
        models = _models(part)
        whole = with_consensus(part)
        for name, model in models.items():
            columns = ["predicted"] if name == COMBINED else [column for columns in model for column in columns]
            rows += [_about(kind, name) | row for row in _alone(whole, columns, twins, kind == "features")]
        rows += [_about(kind, name) | row for name, row in _held_out(part, models, twins)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _about(kind: str, name: str) -> dict[str, str]:
    sees = "rows" if name == COMBINED else USES_TARGET.get(name, "labels")
    return {"candidates": kind, "predictor": name, "uses_target": sees}


def _kinds(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for kind, origins in KINDS.items():
        part = table[table["origin"].isin(origins)]
        if len(part):
            yield kind, part.reset_index(drop=True)


def _models(table: pd.DataFrame) -> dict[str, list[list[str]]]:
    """The columns of each predictor's models: one model, or one a draw."""
    few = dict.fromkeys(draw.split(".")[0] for draw in starting(table, FEW))
    single = {name: [[name]] for name in USES_TARGET}
    return single | {n: [[draw] for draw in starting(table, f"{n}.")] for n in few} | {COMBINED: [LABEL_FREE]}


def _alone(table: pd.DataFrame, columns: list[str], twins: Twins, within: bool) -> Iterator[dict[str, Any]]:
    y = table["auc"].to_numpy()
    values = [table[column].to_numpy(dtype=np.float64) for column in columns]
    known = np.isfinite(values[0])
    counts = _counts(table[known], twins)
    if within:
        points = []
        for (a, b), at in _pairs(table):
            point = float(np.mean([spearman(x[at], y[at]) for x in values]))
            points.append(point)
            yield {"scope": "pair", "train": a, "test": b, "spearman": point, **_size(int(known[at].sum()), point)}
        yield {"scope": "within", **_range(points), **counts}
    overall = float(np.mean([spearman(x, y) for x in values]))
    r2 = float(np.mean([_pearson(x, y) ** 2 for x in values]))
    yield {"scope": "across", "spearman": overall, "r2": r2, "reason": _why(len(table[known]), overall), **counts}


def _pairs(table: pd.DataFrame) -> Iterator[tuple[tuple[str, str], Any]]:
    for name, at in table.groupby(table["train"] + TAB + table["test"], sort=False).indices.items():
        a, b = str(name).split(TAB)
        yield (a, b), at


def _size(n: int, point: float) -> dict[str, Any]:
    return {"n_candidates": n, "n_pairs": 1, "n_domains": 2, "reason": _why(n, point)}


def _why(n: int, value: float) -> str:
    """Why a correlation over n candidates is missing, if it is."""
    if np.isfinite(value):
        return ""
    return f"{n} candidates, fewer than {MIN_CANDIDATES}" if n < MIN_CANDIDATES else "the same for every candidate"


def _counts(table: pd.DataFrame, twins: Twins) -> dict[str, int]:
    pairs = table[["train", "test"]].drop_duplicates()
    names = {min(twins[name]) for name in {*pairs["train"], *pairs["test"]}}
    return {"n_candidates": len(table), "n_pairs": len(pairs), "n_domains": len(names)}


def _range(points: Sequence[float]) -> dict[str, Any]:
    there = [point for point in points if np.isfinite(point)]
    if not there:
        return {"reason": "no pair has a value"}
    missing = len(points) - len(there)
    return {
        "spearman": float(np.mean(there)),
        "spearman_min": min(there),
        "spearman_max": max(there),
        "reason": f"{missing} pairs without a value" if missing else "",
    }


def spearman(x: Floats, y: Floats) -> float:
    """Spearman's correlation over the rows where x is known; NaN below `MIN_CANDIDATES` or where one is constant."""
    known = np.isfinite(x)
    if known.sum() < MIN_CANDIDATES:
        return np.nan
    return _pearson(rankdata(x[known]), rankdata(y[known]))


def _pearson(x: Floats, y: Floats) -> float:
    known = np.isfinite(x)
    x, y = x[known], y[known]
    if len(x) < MIN_CANDIDATES or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def _held_out(
    table: pd.DataFrame, models: Mapping[str, list[list[str]]], twins: Twins
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(predictor, row) for each domain and role. Draws are models of their own, whose scores are averaged."""
    for held_out, names in _domains(table, twins):
        fitting, whole = _without(table, names)
        predicted = {name: [_predicted(fitting, whole, columns) for columns in model] for name, model in models.items()}
        for column, role in (("test", "target"), ("train", "source")):
            at = np.flatnonzero(table[column].isin(names))
            where = {"scope": "held_out", "held_out": held_out, "role": role, **_counts(table.iloc[at], twins)}
            pairs = [rows for _, rows in _pairs(table.iloc[at])]
            y = table["auc"].to_numpy()[at]
            for name, found in predicted.items():
                yield name, where | _judged(y, [one[at] for one in found], pairs, held_out)


def _domains(table: pd.DataFrame, twins: Twins) -> Iterator[tuple[str, frozenset[str]]]:
    """Every domain once, with all its names."""
    present = dict.fromkeys([*table["train"], *table["test"]])
    for name in present:
        if name == next(other for other in present if other in twins[name]):
            yield name, twins[name]


def _judged(y: Floats, predicted: list[Floats], pairs: list[Any], held_out: str) -> dict[str, Any]:
    if not len(y) or any(np.isnan(p).any() for p in predicted):
        return {"reason": f"no pair is left without {held_out} that knows this statistic"}
    points = [float(np.mean([spearman(p[at], y[at]) for p in predicted])) for at in pairs]
    spread = ((y - y.mean()) ** 2).sum()
    errors = [((y - p) ** 2).sum() for p in predicted]
    return _range(points) | {
        "r2": float(np.mean([1 - error / spread if spread else np.nan for error in errors])),
        "rmse": float(np.mean([np.sqrt(error / len(y)) for error in errors])),
    }


def _without(table: pd.DataFrame, names: frozenset[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The pairs without a domain, whose consensus is made without it too; and all pairs with their own.

    Else the domain's labels would reach the fit through what the others' candidates are worth on it.
    """
    kept = ~(table["train"].isin(names) | table["test"].isin(names))
    return with_consensus(table[kept], names), with_consensus(table)


def _predicted(fitting: pd.DataFrame, whole: pd.DataFrame, columns: list[str]) -> Floats:
    """What a ridge regression fitted on some rows predicts for all [rows]; NaN where those rows know no column."""
    X = fitting[columns].to_numpy(dtype=np.float64)
    known = np.isfinite(X).any(axis=0)
    if not known.any():
        return np.full(len(whole), np.nan)
    predict = ridge(X[:, known], fitting["auc"].to_numpy())
    return predict(whole[columns].to_numpy(dtype=np.float64)[:, known])


def ridge(X: Floats, y: Floats) -> Callable[[Floats], Floats]:
    """Ridge regression of y [n] on the columns of X [n, p], missing values allowed, as a function of new rows.

    Columns are standardised by the fitting rows and cut at three deviations, so that no unit or outlier matters. A
    missing value stands at the mean, and a column of its own says that it is missing. The AUC is not transformed:
    where scores are Gaussian it is nearly linear in a cosine (arXiv 2606.19603).
    """
    mean, deviation = np.nanmean(X, axis=0), np.nanstd(X, axis=0)
    factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > TINY)

    def scaled(X: Floats) -> Floats:
        missing = ~np.isfinite(X)
        return np.hstack([np.where(missing, 0.0, np.clip((X - mean) * factor, -CUT, CUT)), missing])

    Z, offset = scaled(X), y.mean()
    middle = Z.mean(axis=0)
    Z -= middle
    weights = np.linalg.solve(Z.T @ Z + RIDGE * np.eye(Z.shape[1]), Z.T @ (y - offset))
    return lambda X: np.asarray((scaled(X) - middle) @ weights + offset, dtype=np.float64)


def predicted_auc(table: pd.DataFrame, twins: Twins) -> Floats:
    """[rows]: what the combined model, fitted without B, predicts for a candidate on B; NaN where it has no pairs."""
    found = np.full(len(table), np.nan)
    for origins in KINDS.values():
        part = np.flatnonzero(table["origin"].isin(origins))
        rows = table.iloc[part]
        for b in rows["test"].unique():
            of_b = (rows["test"] == b).to_numpy()
            found[part[of_b]] = _predicted(*_without(rows, twins[b]), LABEL_FREE)[of_b]
    return found
