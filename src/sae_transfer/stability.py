"""How stable probes and features are: tables of what became of them on other training samples (`resampling.py`).

Every interval here is a range of quantiles over the training samples, on the same test rows. Pure functions on arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sae_transfer import metrics
from sae_transfer.metrics import LEVEL, MIN_GROUPS
from sae_transfer.probes import Matrix, Probe
from sae_transfer.resampling import Ints, Refit

Floats = NDArray[np.float64]

COLUMNS = (
    "space layer sae train test test_variation in_domain probe rank n_features selected varied resamples n_train "
    "auc auc_mean auc_sd auc_low auc_high reason"
).split()
"""results/bootstrap.csv, one row a (space, A, B, probe, varied). `auc` is that of the probe trained on all rows; the
others are over `resamples` training samples: mean, standard deviation, 2.5% and 97.5% quantile. `rank` is the place of
a 1-sparse probe's feature in each sample's own ranking, `n_features` the N of an N-sparse probe, `selected` marks the
rank and the N that A's rows chose."""

FEATURE_COLUMNS = (
    "space layer sae train feature varied resamples n_train n top_k rank rank_median rank_low rank_high "
    "selected_first selected_n selected_top_k reason"
).split()
"""results/bootstrap_features.csv, one row a (SAE, A, feature, varied), for each feature that is among the best n or
top_k of some sample. `rank` is on all rows; the others are over `resamples` samples: median, 2.5% and 97.5% quantile of
the rank, and the share of samples in which the feature ranks first, is among the best `n` (the N that A's rows chose)
or among the best `top_k`. A feature that fires on too few rows to be ranked stands one place behind the last."""


@dataclass(frozen=True)
class HeldOut:
    """B's test rows in the space: `X` [n, d], by columns where sparse, and `labels` [n]."""

    X: Matrix
    labels: NDArray[np.int_]


def by_column(X: Matrix, labels: NDArray[np.int_]) -> HeldOut:
    """Test rows laid out as probes read them: a few columns at a time."""
    return HeldOut(X if isinstance(X, np.ndarray) else X.tocsc(), labels)


def spread(fitted: Sequence[Probe], refits: Sequence[Refit], test: HeldOut, n_groups: int) -> list[dict[str, Any]]:
    """How each probe's AUC on one test set varies: rows of `COLUMNS`, from `probe` on.

    Args:
        fitted: the probes trained on all rows of A.
        refits: what they became on each sample.
        test: B's test rows.
        n_groups: in A's training rows.
    """
    rows = []
    for i, probe in enumerate(fitted):
        own = metrics.auc(probe.score(test.X), test.labels)
        areas = [_area(one.probes[i], test) for one in refits]
        rows.append({**_told(probe), "auc": own, **_summary(own, areas, n_groups)})
    return rows


def _told(probe: Probe) -> dict[str, Any]:
    n_features = 0 if probe.feature_ids is None else len(probe.feature_ids)
    return {
        "probe": probe.kind,
        "rank": probe.rank,
        "n_features": n_features,
        "selected": probe.selected,
    }


def _area(probe: Probe | None, test: HeldOut) -> float:
    return np.nan if probe is None else metrics.auc(probe.score(test.X), test.labels)


def _summary(own: float, areas: Sequence[float], n_groups: int) -> dict[str, Any]:
    found = np.array([area for area in areas if not np.isnan(area)])
    missing = dict.fromkeys(["auc_mean", "auc_sd", "auc_low", "auc_high"], np.nan) | {"resamples": len(found)}
    if np.isnan(own):
        return missing | {"reason": "one class"}
    if n_groups < MIN_GROUPS:
        return missing | {"reason": _few(n_groups)}
    lost = len(areas) - len(found)
    reason = f"{lost} of {len(areas)} training samples have too few groups or features" if lost else ""
    if len(found) < 2:
        return missing | {"reason": reason}
    return {
        "resamples": len(found),
        "auc_mean": round(float(found.mean()), 12),  # equal areas have their own mean, and no deviation
        "auc_sd": round(float(found.std(ddof=1)), 12),
        **dict(zip(("auc_low", "auc_high"), _quantiles(found), strict=True)),
        "reason": reason,
    }


def _few(n_groups: int) -> str:
    return f"{n_groups} training groups, fewer than {MIN_GROUPS}"


def _quantiles(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def selection(fitted: Sequence[Probe], all_rows: Ints, rankings: Sequence[Ints], n_groups: int) -> list[dict[str, Any]]:
    """How often each feature is selected and how its rank varies: rows of `FEATURE_COLUMNS`, from the most stable.

    Args:
        fitted: the probes trained on all rows of A; they say which N was selected, and how many ranks are probes.
        all_rows: feature ids, best first, ranked on all of A's training rows.
        rankings: the same on each training sample; an empty one (a sample without folds) does not count.
        n_groups: in A's training rows.
    """
    n = next((len(probe.weights) for probe in fitted if probe.kind == "sparse_n" and probe.selected), 0)
    top_k = max((probe.rank for probe in fitted), default=0)
    counted = [ranking for ranking in rankings if len(ranking)]
    listed = np.unique(np.concatenate([ranking[: max(n, top_k)] for ranking in (all_rows, *counted)]))
    own = _places(all_rows, listed)
    about = {"resamples": len(counted), "n": n, "top_k": top_k}
    if not counted:
        reason = _few(n_groups) if n_groups < MIN_GROUPS else "no training sample has enough groups for the folds"
        order = np.argsort(own)
        return [{"feature": listed[i], "rank": own[i], **about, "reason": reason} for i in order]
    places = np.array([_places(ranking, listed) for ranking in counted])
    low, middle, high = np.quantile(places, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], axis=0)
    lost = len(rankings) - len(counted)
    reason = f"{lost} of {len(rankings)} training samples have too few groups for the folds" if lost else ""
    return [
        {
            "feature": listed[i],
            "rank": own[i],
            "rank_median": middle[i],
            "rank_low": low[i],
            "rank_high": high[i],
            "selected_first": float(np.mean(places[:, i] == 1)),
            "selected_n": float(np.mean(places[:, i] <= n)),
            "selected_top_k": float(np.mean(places[:, i] <= top_k)),
            **about,
            "reason": reason,
        }
        for i in np.lexsort((listed, places.mean(axis=0)))
    ]


def _places(ranking: Ints, features: Ints) -> Ints:
    """The place from 1 of each feature in a ranking, one behind the last for those that it lacks."""
    places = np.full(max(ranking.max(initial=0), features.max(initial=0)) + 1, len(ranking) + 1)
    places[ranking] = np.arange(1, len(ranking) + 1)
    found: Ints = places[features]
    return found


def best_features(train: str, refits: Sequence[Refit], kept: int = 100) -> pd.DataFrame:
    """The best features of each training sample: columns train, resample, rank (from 1), feature."""
    best = [refit.ranking[:kept] for refit in refits]
    counts = [len(ids) for ids in best]
    return pd.DataFrame(
        {
            "train": np.full(sum(counts), train, dtype=object),
            "resample": np.repeat(np.arange(len(best)), counts),
            "rank": np.concatenate([np.arange(1, count + 1) for count in (0, *counts)]),
            "feature": np.concatenate([np.empty(0, dtype=np.int64), *best]),
        }
    )


def residual_weights(refits: Sequence[Refit]) -> Floats:
    """[B, d_model], the residual probe's weights on each training sample that allowed one."""
    found = [probe.weights for refit in refits for probe in refit.probes if probe and probe.kind == "residual"]
    return np.array(found) if found else np.empty((0, 0))


def with_train_sd(table: pd.DataFrame, bootstrap: pd.DataFrame) -> pd.DataFrame:
    """The transfer table with `auc_train_sd` from the bootstrap over groups, or with the `reason` why there is none.

    Args:
        table: columns `transfer.COLUMNS`.
        bootstrap: columns `COLUMNS`.
    """
    keys = ["space", "train", "test", "test_variation", "probe", "rank", "n_features", "n_train"]
    over_groups = bootstrap[bootstrap["varied"] == "groups"].set_index(keys)[["auc_sd", "reason"]]
    found = table[keys].join(over_groups, on=keys)
    asked = table["condition"] == "test"
    sd = found["auc_sd"].astype(np.float64).where(asked).to_numpy()
    why = found["reason"].fillna("").where(asked, "").to_numpy()
    return table.assign(
        auc_train_sd=np.where(np.isnan(sd), table["auc_train_sd"], sd),
        reason=[_explained(*each) for each in zip(table["reason"].fillna(""), sd.tolist(), why, strict=True)],
    )


def _explained(reason: str, sd: float, why: str) -> str:
    """A row's reasons when its `auc_train_sd` is known, or is missing for a reason of its own."""
    parts = [part for part in reason.split("; ") if part]
    if "auc_train_sd: trained once" not in parts or (np.isnan(sd) and not why):
        return reason
    at = parts.index("auc_train_sd: trained once")
    parts[at : at + 1] = [f"auc_train_sd: {why}"] if np.isnan(sd) else []
    return "; ".join(parts)
