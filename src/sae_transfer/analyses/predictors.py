"""How well a statistic of a candidate tells its AUC on B, alone and combined, on domains that it has not seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from sae_transfer.analyses.analysis import Analysis, by_sae
from sae_transfer.analyses.candidate_statistics import FEW, LABEL_FREE, TARGET_ACCESS, starting, with_consensus
from sae_transfer.analyses.candidates import FEATURES
from sae_transfer.analyses.domains import ACCESS, KEYS, N_DOMAINS, same_data
from sae_transfer.core.arrays import Floats
from sae_transfer.results import cells
from sae_transfer.results.schema import REASON, Column, Table, integers, numbers, texts
from sae_transfer.results.sections import Picture, Section, Tables, look_up
from sae_transfer.results.words import words

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

SameData = Mapping[str, frozenset[str]]  # by domain name, all names that stand for the same rows, its own included
Models = Mapping[str, list[list[str]]]  # by predictor, the columns of its models: one model, or one a draw
Row = dict[str, Any]

KINDS = {"features": FEATURES, "sparse_probes": ("sparse_probe",), "residual_probes": ("residual_probe",)}
COMBINED = "combined"
MIN_CANDIDATES = 8  # below, a rank correlation says nothing
RIDGE = 1.0
CUT = 3.0
TINY = 1e-12
PREDICTS, HARDLY = 0.5, 0.2  # of Spearman's correlation within (A, B), mean over SAEs and pairs
MARK = 0.98

TABLE = Table(
    "predictors",
    "one row a (SAE, candidates, predictor, scope, ...): how well the predictor tells the AUC on B's test rows",
    (
        KEYS[0],
        *texts(
            candidates="features: A's top 100 and 200 random ones; sparse_probes: A's sparse_1 and sparse_n; "
            "residual_probes: A's residual and mean_difference, the same for every SAE of a layer",
            predictor="a statistic of a candidate; few_<n>, its AUC on n labels of B (mean over the draws); or "
            "combined, a ridge regression on all that need no label of B, fitted on the pairs without B (scope "
            "held_out: without the domain held_out)",
        ),
        ACCESS,
        *texts(
            scope="pair: a rank correlation over the candidates of one (A, B), a point; within: the mean of those "
            "points; across: over all candidates of all pairs at once; held_out: how well the AUC itself is predicted "
            "by a ridge regression on the predictor, fitted on the pairs without the domain held_out and judged on "
            "those where it is the target or the source (role)"
        ),
        *KEYS[1:],
        *texts(held_out="the domain left out", role="target or source: what it is in the pairs that are judged"),
        Column(
            "spearman",
            "number",
            "with the AUC; of several pairs the mean",
            heading="Spearman within pairs: mean (range)",
        ),
        *numbers(
            spearman_min="the lowest pair",
            spearman_max="the highest pair: a range, no interval",
            r2="across: Pearson's correlation squared; held_out: 1 - SSE/SST, below 0 where their mean predicts better",
            rmse="held_out: root mean square error of the AUC, which still tells where all candidates do equally well",
        ),
        *integers(n_candidates="how many candidates; those of one pair are no independent witnesses"),
        Column("n_pairs", "integer", "how many pairs (A, B)", heading="pairs"),
        N_DOMAINS,
        REASON,
    ),
)


def predictors(table: pd.DataFrame, same_data: SameData, sae: str = "") -> pd.DataFrame:
    """Scores every predictor on a table of candidates, with the columns of `TABLE`.

    Args:
        table: what `statistics` gave, of all pairs, with a column `predicted` (see `predicted_auc`).
        same_data: all names of each domain, of the whole study.
        sae: the name of the SAE.
    """
    rows: list[dict[str, Any]] = []
    known = table[table["auc"].notna()]
    for kind, origins in KINDS.items():
        part = known[known["origin"].isin(origins)].reset_index(drop=True)
        models = _models(part) if len(part) else {}
        for name, row in (*_alone(part, models, same_data, kind), *_held_out(part, models, same_data)):
            sees = "rows" if name == COMBINED else TARGET_ACCESS.get(name, "labels")
            rows.append({"sae": sae, "candidates": kind, "predictor": name, "target_access": sees} | row)
    return TABLE.frame(rows)


def _models(table: pd.DataFrame) -> Models:
    few = dict.fromkeys(draw.split(".")[0] for draw in starting(table, FEW))
    single = {name: [[name]] for name in TARGET_ACCESS}
    return single | {n: [[draw] for draw in starting(table, f"{n}.")] for n in few} | {COMBINED: [LABEL_FREE]}


def _alone(table: pd.DataFrame, models: Models, same_data: SameData, kind: str) -> Iterator[tuple[str, Row]]:
    """(predictor, row) within each pair and within all of them, where there are enough candidates, and across pairs."""
    whole, pairs, y = with_consensus(table), _pairs(table), table["auc"].to_numpy()
    for name, model in models.items():
        columns = ["predicted"] if name == COMBINED else [column for columns in model for column in columns]
        values = [whole[column].to_numpy(dtype=np.float64) for column in columns]
        known = np.isfinite(values[0])
        counts = _counts(whole[known], same_data)
        if kind == "features":
            points = {pair: _spearman(values, y, at) for pair, at in pairs.items()}
            for (a, b), point in points.items():
                size = {"n_candidates": int(known[pairs[a, b]].sum()), "n_pairs": 1, "n_domains": 2}
                yield name, {"scope": "pair", "train": a, "test": b, **_point(point, size)}
            yield name, {"scope": "within", **_range([*points.values()]), **counts}
        r2 = float(np.mean([_pearson(x, y) ** 2 for x in values]))
        yield name, {"scope": "across", "r2": r2, **_point(_spearman(values, y), counts)}


def _pairs(table: pd.DataFrame) -> dict[Any, Any]:
    """By (A, B), where its rows stand."""
    return table.groupby(["train", "test"], sort=False).indices


def _point(value: float, counts: dict[str, int]) -> Row:
    """A correlation over so many candidates, with the reason if it is missing."""
    n, why = counts["n_candidates"], ""
    if not np.isfinite(value):
        few = f"{n} candidates, fewer than {MIN_CANDIDATES}"
        why = f"spearman: {few if n < MIN_CANDIDATES else 'the same for every candidate'}"
    return {"spearman": value, **counts, "reason": why}


def _counts(table: pd.DataFrame, same_data: SameData) -> dict[str, int]:
    pairs = table[["train", "test"]].drop_duplicates()
    names = {min(same_data[name]) for name in {*pairs["train"], *pairs["test"]}}
    return {"n_candidates": len(table), "n_pairs": len(pairs), "n_domains": len(names)}


def _range(points: Sequence[float]) -> Row:
    there = [point for point in points if np.isfinite(point)]
    if not there:
        return {"reason": "spearman: no pair has a value"}
    missing = len(points) - len(there)
    found = {"spearman": float(np.mean(there)), "spearman_min": min(there), "spearman_max": max(there)}
    return found | {"reason": f"spearman: {missing} pairs without a value" if missing else ""}


def _spearman(values: Sequence[Floats], y: Floats, at: Any = slice(None)) -> float:
    """Mean over several columns, such as those of several draws, at some of the rows."""
    return float(np.mean([spearman(x[at], y[at]) for x in values]))


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


def _held_out(table: pd.DataFrame, models: Models, same_data: SameData) -> Iterator[tuple[str, Row]]:
    """(predictor, row) for each domain and role. Draws are models of their own, whose scores are averaged."""
    present = dict.fromkeys([*table["train"], *table["test"]])
    for held_out in present:
        if held_out != next(name for name in present if name in same_data[held_out]):
            continue  # the same rows under another name were left out already
        fitting, whole = _without(table, same_data[held_out])
        predicted = {name: [_predicted(fitting, whole, columns) for columns in model] for name, model in models.items()}
        for column, role in (("test", "target"), ("train", "source")):
            at = np.flatnonzero(table[column].isin(same_data[held_out]))
            where = {"scope": "held_out", "held_out": held_out, "role": role, **_counts(table.iloc[at], same_data)}
            pairs, y = [*_pairs(table.iloc[at]).values()], table["auc"].to_numpy()[at]
            for name, found in predicted.items():
                yield name, where | _judged(y, [one[at] for one in found], pairs, held_out)


def _judged(y: Floats, predicted: list[Floats], pairs: list[Any], held_out: str) -> Row:
    if not len(y) or any(np.isnan(p).any() for p in predicted):
        return {"reason": f"rmse: no pair is left without {held_out} that knows this statistic"}
    spread, errors = ((y - y.mean()) ** 2).sum(), [((y - p) ** 2).sum() for p in predicted]
    return _range([_spearman(predicted, y, at) for at in pairs]) | {
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
    """What a ridge regression fitted on some rows predicts for all [rows]; NaN where those rows know no column.

    It is fitted to the AUC on the other domains' training rows, so that no test row of any domain has a part in it.
    """
    X = fitting[columns].to_numpy(dtype=np.float64)
    known = np.isfinite(X).any(axis=0)
    if not known.any():
        return np.full(len(whole), np.nan)
    predict = ridge(X[:, known], fitting["training_auc"].to_numpy())
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


def predicted_auc(table: pd.DataFrame, same_data: SameData) -> Floats:
    """[rows]: what the combined model, fitted without B, predicts for a candidate on B; NaN where it has no pairs."""
    found = np.full(len(table), np.nan)
    for origins in KINDS.values():
        part = np.flatnonzero(table["origin"].isin(origins))
        rows = table.iloc[part]
        for b in rows["test"].unique():
            of_b = (rows["test"] == b).to_numpy()
            found[part[of_b]] = _predicted(*_without(rows, same_data[b]), LABEL_FREE)[of_b]
    return found


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one SAE."""
    return predictors(study.analysis("candidates", part), same_data(study), part)


def summarise(table: pd.DataFrame) -> list[str]:
    """What the table says. Means are over all SAEs and (A, B), which share domains, so no interval is claimed."""
    return [*_combined(table), *_bound(table)]


def _means(rows: pd.DataFrame, column: str) -> "pd.Series[float]":
    return rows.groupby("predictor", sort=False)[column].mean()


def _cases(rows: pd.DataFrame) -> str:
    return f"{_saes(rows)}, {rows['n_pairs'].max():.0f} pairs, {rows['n_domains'].max():.0f} domains"


def _saes(rows: pd.DataFrame) -> str:
    n = rows["sae"].nunique()
    return f"{n} SAE{'s' * (n != 1)}"


def _combined(table: pd.DataFrame) -> Iterator[str]:
    held = table[(table["scope"] == "held_out") & (table["role"] == "target") & table["rmse"].notna()]
    for kind in KINDS:
        rows, what = held[held["candidates"] == kind], kind.replace("_", " ")
        own = rows[rows["predictor"] == COMBINED]
        if own.empty:
            yield f"For {what} no combined predictor could be judged: leaving a domain out leaves no pair."
            continue
        by_domain = own.groupby("held_out", sort=False)[["r2", "rmse"]].mean().itertuples()
        points = [f"{name} {f'{r2:.2f}' if r2 >= 0 else 'below 0'} ({rmse:.2f})" for name, r2, rmse in by_domain]
        error = _means(rows[rows["target_access"] != "labels"], "rmse")
        best = str(error.drop(COMBINED).idxmin())
        yield (
            "All label-free statistics combined, on a domain left out, explain these shares (R2) of the AUC of "
            f"{what}, with this error: {', '.join(points)} (means over {_saes(own)}; {len(points)} domains, no "
            f"interval). The best single one, {words('predictor', best)}, errs by {error[best]:.2f} on average, "
            f"the combination by {error[COMBINED]:.2f}."
        )


def _bound(table: pd.DataFrame) -> Iterator[str]:
    across = table[(table["scope"] == "across") & table["r2"].notna()]
    for kind in KINDS:
        rows = across[across["candidates"] == kind]
        r2, free = _means(rows, "r2"), rows[(rows["target_access"] != "labels") & (rows["predictor"] != COMBINED)]
        if {"mahalanobis_target", "agreement_target"} <= set(r2.index) and len(free):
            best = str(r2[free["predictor"].unique()].idxmax())
            yield (
                f"The bound, with B's labels: over all {kind.replace('_', ' ')} and pairs the Mahalanobis cosine to "
                f"B's own probe has R2 {r2['mahalanobis_target']:.2f}, the correlation of scores with that probe "
                f"{r2['agreement_target']:.2f} (published mark for residual probes {MARK}); without labels the best, "
                f"{words('predictor', best)}, has {r2[best]:.2f} ({_cases(rows)})."
            )


def by_predictor(features: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How each predictor does for single features: by SAE, and over SAEs (means, and the range over all pairs)."""
    keys = ["sae", "predictor"]
    across = features.loc[features["scope"] == "across", [*keys, "spearman", "r2"]]
    within = features[features["scope"] == "within"].drop(columns="r2").merge(across, on=keys, suffixes=("", "_across"))
    within = within.rename(columns={"spearman_min": "spearman_low", "spearman_max": "spearman_high"})
    numbers = {"spearman": "mean", "spearman_low": "min", "spearman_high": "max", "r2": "mean", "n_pairs": "max"}
    return within, within.groupby(["predictor", "target_access"], sort=False).agg(numbers).reset_index()


def claim(means: pd.DataFrame) -> str:
    """The best predictors by what they see of B, and whether they predict anything."""
    told, known = [], means[means["spearman"].notna() & (means["predictor"] != COMBINED)]
    for sees, said in (("rows", "Without labels of B"), ("no", "without any row of B")):
        rows = known[known["target_access"] == sees]
        if len(rows):
            best = rows.nlargest(1, "spearman").iloc[0]
            name, value = words("predictor", best["predictor"]), best["spearman"]
            how = "best" if value >= PREDICTS else "best, and weakly"
            predicts = f"\u201c{name}\u201d predicts the AUC on B {how}" if value >= HARDLY else "nothing predicts it"
            told.append(f"{said}, {predicts} (rank correlation {cells.number(value)})")
    return f"{'; '.join(told)}." if told else "No predictor has a value."


def section(tables: Tables) -> Section:
    """The section of the report."""
    within, means = by_predictor(tables["predictors"][tables["predictors"]["candidates"] == "features"])
    top = means.sort_values("spearman", ascending=False, kind="stable").groupby("target_access", sort=False).head(3)
    shown = [*TABLE.pick("predictor", "target_access", "spearman"), Column("r2", "number", "", heading="R2 across")]
    return Section(
        "predict",
        "What predicts which features generalise?",
        claim(means),
        "Each predictor is computed for A's 100 best features and 200 random ones of like density, from training rows "
        "alone, and compared with the AUC that the feature then has on B's test rows. Candidates of one pair are no "
        "independent witnesses: what counts is how many domains a claim rests on.",
        TABLE.name,
        summarise(tables["predictors"]),
        [
            Picture("predictors", "Rank correlation of each predictor with the AUC on B, mean and range over pairs."),
            Picture("held_out", "R2 of the predictions on each domain that they were not fitted on."),
        ],
        [
            look_up(top, "The three best predictors by what they see of B; range over pairs and SAEs", shown),
            look_up(
                within, "Every predictor by SAE", [*TABLE.pick("sae"), *shown, *TABLE.pick("n_pairs", "n_domains")]
            ),
        ],
    )


ANALYSIS = Analysis(TABLE, compute, parts=by_sae, after=("candidates",), params=(), section=section)
