"""How the directions of probes and features lie to each other: the rows of results/similarity.csv. Pure functions.

All directions are in the coordinates of the raw residual stream. A residual probe is standardised while it is trained;
its weights here have the standardisation folded in, so that score = w . x + b for the stream x itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sae_transfer.similarity import cosine, mahalanobis_cosine

Floats = NDArray[np.float64]

# One row compares a direction with another one; which directions, `table` says.
#   layer, sae, train    where the direction comes from; `sae` is empty for a residual probe
#   direction            residual, bootstrap (the resamples of one residual probe), sparse_1, sparse_n
#   reading              encoder: sum_i w_i enc_i, the linear part of the score as a function of the stream;
#                        decoder: sum_i w_i dec_i, the combination of what the features write
#   rank, n_features, feature_ids, selected   as in the transfer table
#   other, other_layer, other_train, other_rank   what it is compared with
#   measure, covariance  cosine; or mahalanobis, with the dataset whose training rows give the covariance
#   similarity           signed by the probes' weights: positive where both rise with answerability
#   low, high            2.5% and 97.5% quantiles over the training bootstraps of the residual probes
#   null_low, null_median, null_high   quantiles (2.5, 50, 97.5%) of |similarity| by chance: for sparse_1 every feature
#                        of the SAE that fires (2,000 at random where more do) in place of the top one; for sparse_n
#                        probes fitted on as many random features; for residual probes those on shuffled labels
#   share_below          the share of that null below |similarity|
#   over_top, over_top_low, over_top_high   similarity of a sparse_n less that of the top feature, same reading
COLUMNS = (
    "layer sae train direction reading rank n_features feature_ids selected other other_layer other_train other_rank "
    "measure covariance similarity low high null_low null_median null_high share_below "
    "over_top over_top_low over_top_high reason"
).split()
READINGS = ("encoder", "decoder")


@dataclass(frozen=True)
class Layer:
    """What is known of one layer; every mapping is by dataset.

    `probes` [d]: the residual probe. `resampled` [B, d]: the same on bootstraps of its training rows, where there are
    any. `shuffled` [r, d]: the same on shuffled labels. `covariances` [d, d]: of the training rows.
    """

    number: int
    probes: Mapping[str, Floats]
    resampled: Mapping[str, Floats]
    shuffled: Mapping[str, Floats]
    covariances: Mapping[str, Floats]

    def measured(self, a: ArrayLike, b: ArrayLike, covariance: str) -> Floats:
        """[m, n] cosines of directions a [m, d] and b [n, d], under a dataset's covariance or, for "", plain."""
        return mahalanobis_cosine(a, b, self.covariances[covariance]) if covariance else cosine(a, b)


@dataclass(frozen=True)
class SparseDirection:
    """The direction of a 1-sparse or N-sparse probe [d], and of probes on N random features [r, d] (N-sparse only)."""

    about: Mapping[str, Any]
    reading: str
    vector: Floats
    random: Floats

    @property
    def chosen(self) -> bool:
        return bool(self.about["selected"])


def residual_rows(layer: Layer) -> list[dict[str, Any]]:
    """Residual probes of one layer with each other, and each with its own bootstraps."""
    rows = []
    for a, b in combinations(layer.probes, 2):
        for covariance in ("", a, b):
            value = float(layer.measured(layer.probes[a][None], layer.probes[b][None], covariance)[0, 0])
            pairs = zip(layer.resampled.get(a, ()), layer.resampled.get(b, ()), strict=False)
            spread = [float(layer.measured(x[None], y[None], covariance)[0, 0]) for x, y in pairs]
            null = np.abs(layer.measured(layer.shuffled[a], layer.probes[b][None], covariance)[:, 0])
            rows.append(_row(layer, "residual", a, b, covariance, value) | _spread(spread) | _null(value, null))
    for a, probes in layer.resampled.items():
        for covariance in ("", a):
            among = layer.measured(probes, probes, covariance)[np.triu_indices(len(probes), 1)]
            value = float(np.mean(among)) if len(among) else np.nan
            null = np.abs(layer.measured(layer.shuffled[a], probes, covariance)).ravel()
            row = _row(layer, "bootstrap", a, a, covariance, value) | {"other": "bootstrap"}
            rows.append(row | _spread(among) | _null(value, null))
    return rows


def layer_rows(one: Layer, other: Layer) -> list[dict[str, Any]]:
    """Each dataset's residual probe at one layer with that at another, where the streams are equally wide."""
    rows = []
    for train, probe in one.probes.items():
        if len(probe) != len(other.probes[train]):
            continue
        value = float(cosine(probe[None], other.probes[train][None])[0, 0])
        pairs = zip(one.resampled.get(train, ()), other.resampled.get(train, ()), strict=False)
        spread = [float(cosine(x[None], y[None])[0, 0]) for x, y in pairs]
        null = np.abs(cosine(one.shuffled[train], other.probes[train][None])[:, 0])
        row = _row(one, "residual", train, train, "", value) | {"other_layer": other.number}
        rows.append(row | _spread(spread) | _null(value, null))
    return rows


def sparse_rows(
    layer: Layer, sae: str, train: str, found: list[SparseDirection], features: Mapping[str, Floats]
) -> list[dict[str, Any]]:
    """The SAE probes trained on one dataset, against residual probes, and their top features with each other.

    Against the residual probe of the same dataset every probe is compared, under every dataset's covariance; against
    those of other datasets the chosen ones, under the covariance of either.

    Args:
        layer: the SAE's layer.
        sae: its name.
        train: the dataset.
        found: the directions, in both readings.
        features: by reading, the directions [m, d] of features that tell what similarity is by chance.
    """
    rows = []
    for reading in dict.fromkeys(one.reading for one in found):
        here = [one for one in found if one.reading == reading]
        for other in layer.probes:
            compared = here if other == train else [one for one in here if one.chosen]
            for covariance in ("", *layer.covariances) if other == train else ("", train, other):
                rows += _against_probe(layer, compared, features[reading], other, covariance)
        top = [one for one in here if one.about["probe"] == "sparse_1"]
        rows += [row for covariance in ("", train) for row in _among(layer, top, features[reading], covariance)]
    return [row | {"sae": sae, "train": train} for row in rows]


def _against_probe(
    layer: Layer, found: list[SparseDirection], features: Floats, other: str, covariance: str
) -> list[dict[str, Any]]:
    probe, resampled = layer.probes[other][None], layer.resampled.get(other, np.zeros((0, layer.probes[other].size)))
    every = np.abs(layer.measured(features, probe, covariance)[:, 0])
    if not found:
        return []
    values = layer.measured(np.array([one.vector for one in found]), np.vstack([probe, resampled]), covariance)
    top = next((i for i, one in enumerate(found) if one.about["probe"] == "sparse_1" and one.chosen), None)
    rows = []
    for one, value in zip(found, values, strict=True):
        many = one.about["probe"] == "sparse_n"
        null = np.abs(layer.measured(one.random, probe, covariance)[:, 0]) if many else every
        row = _row(layer, one.about["probe"], "", other, covariance, float(value[0]))
        row |= _about(one) | _spread(value[1:]) | _null(float(value[0]), null)
        if many and top is not None:
            over = value - values[top]
            low, high = _quantiles(over[1:])
            row |= {"over_top": float(over[0]), "over_top_low": low, "over_top_high": high}
        rows.append(row)
    return rows


def _among(layer: Layer, top: list[SparseDirection], features: Floats, covariance: str) -> list[dict[str, Any]]:
    """Pairs of top features; by chance: pairs from an even sample of the SAE's features."""
    if len(top) < 2:
        return []
    vectors = np.array([one.vector for one in top])
    values = layer.measured(vectors, vectors, covariance)
    sample = features[np.linspace(0, len(features) - 1, min(len(features), 300)).astype(int)]
    null = np.abs(layer.measured(sample, sample, covariance)[np.triu_indices(len(sample), 1)])
    rows = []
    for i, j in combinations(range(len(top)), 2):
        value = float(values[i, j])
        row = _row(layer, "sparse_1", "", "", covariance, value) | _about(top[i])
        row |= {"other": "sparse_1", "other_train": "", "other_rank": top[j].about["rank"]}
        rows.append(row | _null(value, null))
    return rows


def _about(one: SparseDirection) -> dict[str, Any]:
    return {key: one.about[key] for key in ("rank", "n_features", "feature_ids", "selected")} | {"reading": one.reading}


def _row(layer: Layer, direction: str, train: str, other: str, covariance: str, value: float) -> dict[str, Any]:
    empty = dict.fromkeys(("low", "high", "over_top", "over_top_low", "over_top_high"), np.nan)
    return empty | {
        "layer": layer.number,
        "sae": "",
        "train": train,
        "direction": direction,
        "reading": "",
        "rank": 0,
        "n_features": 0,
        "feature_ids": "",
        "selected": True,
        "other": "residual",
        "other_layer": layer.number,
        "other_train": other,
        "other_rank": 0,
        "measure": "mahalanobis" if covariance else "cosine",
        "covariance": covariance,
        "similarity": value,
    }


def _spread(values: ArrayLike) -> dict[str, float]:
    low, high = _quantiles(values)
    return {"low": low, "high": high}


def _quantiles(values: ArrayLike) -> tuple[float, float]:
    known = np.asarray(values, dtype=np.float64)
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) > 1 else (np.nan, np.nan)
    return float(low), float(high)


def _null(value: float, null: Floats) -> dict[str, float]:
    """What |similarity| is by chance, and the share of it below the value; NaN where nothing was drawn.

    A feature is among those that it is compared with: rounding must not make it less similar than itself.
    """
    known = null[~np.isnan(null)]
    if not len(known):
        return dict.fromkeys(("null_low", "null_median", "null_high", "share_below"), np.nan)
    low, median, high = np.quantile(known, [0.025, 0.5, 0.975])
    share = float(np.mean(known < abs(value) - 1e-9)) if not np.isnan(value) else np.nan
    return {"null_low": float(low), "null_median": float(median), "null_high": float(high), "share_below": share}


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows with the columns of `COLUMNS`; `reason` says of each missing number why it is missing."""
    made = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "reason"])
    features = (made["direction"] == "sparse_1") & (made["other"] == "sparse_1")
    why = {
        "similarity": (made["similarity"].isna(), "a direction of no length or a score that does not vary"),
        "low": (made["low"].isna() & ~features, "fewer than two training bootstraps"),
        "low ": (features, "features are not resampled"),
        "null": (made["null_median"].isna(), "nothing to draw from"),
    }
    parts = [np.where(missing, f"{name.strip()}: {reason}; ", "") for name, (missing, reason) in why.items()]
    made["reason"] = ["".join(each).rstrip("; ") for each in zip(*parts, strict=True)]
    return made[list(COLUMNS)]


def answer(similarities: pd.DataFrame) -> list[str]:
    """Are top features closest to the linear probe, and do combinations come closer? A sentence a question and reading.

    Args:
        similarities: the table; plain cosines with the residual probe of the same dataset decide.
    """
    same = (similarities["other"] == "residual") & (similarities["other_train"] == similarities["train"])
    rows = similarities[same & (similarities["measure"] == "cosine") & similarities["selected"].astype(bool)]
    said = []
    for reading in READINGS:
        here = rows[rows["reading"] == reading].dropna(subset=["similarity"])
        top, many = (here[here["direction"] == kind] for kind in ("sparse_1", "sparse_n"))
        if len(top):
            said.append(_top_sentence(reading, top))
        if len(many):
            said.append(_combination_sentence(reading, many))
    return said or ["No SAE probe can be compared with a residual probe."]


def _top_sentence(reading: str, top: pd.DataFrame) -> str:
    value, beyond = top["similarity"], int((top["similarity"].abs() > top["null_high"]).sum())
    return (
        f"{reading.capitalize()} directions: the top feature's cosine with the residual probe of its training set is "
        f"{value.mean():.2f} on average ({value.min():.2f} to {value.max():.2f} over {len(top)} pairs of SAE and "
        f"training set); {top['share_below'].mean():.0%} of the SAE's features are less similar, and in {beyond} of "
        f"{len(top)} pairs it lies beyond 97.5% of them."
    )


def _combination_sentence(reading: str, many: pd.DataFrame) -> str:
    over, closer, farther = many["over_top"], (many["over_top_low"] > 0).sum(), (many["over_top_high"] < 0).sum()
    return (
        f"{reading.capitalize()} directions: the N-sparse combination reaches {many['similarity'].mean():.2f} on "
        f"average, {over.mean():+.2f} against the top feature. It is closer in {(over > 0).sum()} of {len(many)} "
        f"pairs; over training bootstraps of the residual probe, clearly closer in {closer} and clearly farther in "
        f"{farther}. Combinations of as many random features reach {many['null_median'].mean():.2f}."
    )
