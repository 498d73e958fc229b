"""How the directions of probes and features lie to each other.

All directions are in the coordinates of the raw residual stream. A residual probe is standardised while it is trained;
its weights here have the standardisation folded in, so that score = w . x + b for the stream x itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sae_transfer.analyses.analysis import Analysis, by_sae
from sae_transfer.artifacts.features import Directions
from sae_transfer.core.arrays import Floats
from sae_transfer.core.randomness import rng_for
from sae_transfer.core.space import Space, residual_stream
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.sae_probes import sparse_n
from sae_transfer.results.schema import REASON, Column, Table, estimate, integers, numbers, texts
from sae_transfer.results.sections import Picture, Section, Tables, look_up
from sae_transfer.results.transfer_table import TRANSFER
from sae_transfer.stats.cosines import cosine, mahalanobis_cosine
from sae_transfer.stats.intervals import Estimate, reasons

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

READS = "sum_i w_i enc_i, the linear part of the score as a function of the stream"
WRITES = "sum_i w_i dec_i, the combination of what the features write"
BOUNDS = "its bounds are quantiles over the training bootstraps of the residual probes"
CHANCE = (
    "sparse_1: every feature of the SAE that fires (2,000 at random where more do) in place of the top one; sparse_n: "
    "probes fitted on as many random features; residual: probes on shuffled labels"
)
TABLE = Table(
    "similarity",
    "one row compares a direction with another",
    (
        *TRANSFER.pick("layer"),
        Column("sae", "text", "the SAE whose features make the direction; empty for a residual probe", heading="SAE"),
        Column("train", "text", "the dataset that the direction was trained on", heading="trained on"),
        Column("direction", "text", "residual, bootstrap (its resamples), sparse_1 or sparse_n", heading="probe"),
        Column("reading", "text", f"encoder: {READS}; decoder: {WRITES}", heading="directions"),
        *TRANSFER.pick("rank"),
        Column("n_features", "integer", "how many features the direction combines", heading="N"),
        *TRANSFER.pick("feature_ids", "selected"),
        *texts(other="what it is compared with: residual, bootstrap or sparse_1"),
        *integers(other_layer="the layer of what it is compared with"),
        *texts(other_train="the dataset of what it is compared with; empty for a feature of the same training set"),
        *integers(other_rank="the rank of the feature that it is compared with; 0 elsewhere"),
        *texts(
            measure="cosine or mahalanobis, the correlation of the scores that the two directions give",
            covariance="the dataset whose training rows give the covariance of mahalanobis",
        ),
        *estimate("similarity", f"positive where both rise with answerability; {BOUNDS}", heading="cosine"),
        *numbers(
            null_low=f"2.5% quantile of |similarity| by chance: {CHANCE}",
            null_median="median of |similarity| by chance",
            null_high="97.5% quantile of |similarity| by chance",
        ),
        Column("null_percentile", "number", "the share of chance below |similarity|", heading="share of chance below"),
        *estimate("gain_over_top", "similarity of a sparse_n less that of the top feature, same reading", signed=True),
        REASON,
    ),
)
READINGS = ("encoder", "decoder")
FEATURES = 2000  # of an SAE, drawn at random where it has more, tell how similar a feature is by chance
RANDOM = 40  # probes on random features, for each N
RESIDUAL = "residual"  # the part that compares residual probes alone; no SAE has this name


@dataclass(frozen=True)
class Layer:
    """What is known of one layer; every mapping is by dataset.

    `probes` [d]: the residual probe. `resampled` [B, d]: the same on bootstraps of its training rows. `shuffled`
    [r, d]: the same on shuffled labels. `covariances` [d, d]: of the training rows.
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
    """A 1-sparse or N-sparse probe as a direction [d], and probes on N random features [r, d] (N-sparse only)."""

    probe: Probe
    vector: Floats
    random: Floats


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one SAE, or those of residual probes alone."""
    if part == RESIDUAL:
        layers = [_layer(study, space) for space in study.layers]
        rows = [row for layer in layers for row in residual_rows(layer)]
        return TABLE.frame([*rows, *(row for pair in combinations(layers, 2) for row in layer_rows(*pair))])
    sae = study.space(part)
    layer, known = _layer(study, residual_stream(int(sae.layer or 0))), study.directions(sae)
    draw = rng_for(study.seed, "features by chance", sae.name).permutation(len(known.feature_ids))
    features = {reading: getattr(known, reading)[np.sort(draw[:FEATURES])] for reading in READINGS}
    by_train = {train: _sparse_directions(study, sae, train) for train in study.datasets}
    rows = [row for train, found in by_train.items() for row in sparse_rows(layer, train, found, features)]
    return TABLE.frame(row | {"sae": sae.name} for row in rows)


def _layer(study: "Study", space: Space) -> Layer:
    fitted = {name: study.full_probes(space, name) for name in study.datasets}
    probes = {name: _weights(found, "residual")[0] for name, found in fitted.items()}
    return Layer(
        int(space.layer or 0),
        probes,
        {name: study.resamples(space, name).residual.reshape(-1, len(probe)) for name, probe in probes.items()},
        {name: _weights(found, "shuffled_labels") for name, found in fitted.items()},
        {name: np.cov(study.rows(space, name).X, rowvar=False, dtype=np.float64) for name in study.datasets},
    )


def _weights(fitted: Sequence[Probe], kind: str) -> Floats:
    """[probes of the kind, d_model]."""
    return np.array([p.weights for p in fitted if p.kind == kind]).reshape(-1, len(fitted[0].weights))


def _sparse_directions(study: "Study", sae: Space, train: str) -> dict[str, list[SparseDirection]]:
    """By reading, the direction of every 1-sparse and N-sparse probe of one training set."""
    rows, known, scaling = study.rows(sae, train), study.directions(sae), study.params.probe.at(sae.name, train).scaling
    draw = rng_for(study.seed, "random features", sae.name, train)
    found: dict[str, list[SparseDirection]] = {reading: [] for reading in READINGS}
    for probe in [probe for probe in study.full_probes(sae, train) if probe.kind in ("sparse_1", "sparse_n")]:
        n, many = len(probe.weights), probe.kind == "sparse_n"
        drawn = [draw.permutation(known.feature_ids)[:n] for _ in range(RANDOM if many else 0)]
        random = [sparse_n(rows, ids, probe.C, selected=False, scaling=scaling) for ids in drawn]
        for reading, directions in found.items():
            own, *others = (_direction(one, known, reading) for one in (probe, *random))
            directions.append(SparseDirection(probe, own, np.array(others).reshape(-1, len(own))))
    return found


def _direction(probe: Probe, known: Directions, reading: str) -> Floats:
    """sum_i w_i d_i over the probe's features, [d_model]."""
    at = np.searchsorted(known.feature_ids, np.asarray(probe.feature_ids))
    return np.asarray(probe.weights @ getattr(known, reading)[at], dtype=np.float64)


def residual_rows(layer: Layer) -> list[dict[str, Any]]:
    """Residual probes of one layer with each other, and each with its own bootstraps."""
    pairs = combinations(layer.probes, 2)
    rows = [_pair(layer, a, layer, b, covariance) for a, b in pairs for covariance in ("", a, b)]
    for a, probes in layer.resampled.items():
        for covariance in ("", a) if len(probes) > 1 else ():
            among = layer.measured(probes, probes, covariance)[np.triu_indices(len(probes), 1)]
            null = layer.measured(layer.shuffled[a], probes, covariance)
            about = {"direction": "bootstrap", "train": a, "other": "bootstrap", "other_train": a}
            rows.append(_row(layer, covariance, float(np.mean(among)), among, null, **about))
    return rows


def layer_rows(one: Layer, other: Layer) -> list[dict[str, Any]]:
    """Each dataset's residual probe at one layer with that at another, where the streams are equally wide."""
    trains = [train for train, probe in one.probes.items() if len(probe) == len(other.probes[train])]
    return [_pair(one, train, other, train, "") for train in trains]


def _pair(one: Layer, a: str, other: Layer, b: str, covariance: str) -> dict[str, Any]:
    """A residual probe and another one, bootstrap by bootstrap; by chance: the first trained on shuffled labels."""
    drawn = zip([one.probes[a], *one.resampled[a]], [other.probes[b], *other.resampled[b]], strict=False)
    value, *spread = [float(one.measured(x[None], y[None], covariance)[0, 0]) for x, y in drawn]
    null = one.measured(one.shuffled[a], other.probes[b][None], covariance)
    about = {"direction": "residual", "train": a, "other_layer": other.number, "other_train": b}
    return _row(one, covariance, value, spread, null, **about)


def sparse_rows(
    layer: Layer, train: str, found: Mapping[str, Sequence[SparseDirection]], features: Mapping[str, Floats]
) -> list[dict[str, Any]]:
    """The SAE probes trained on one dataset, against residual probes, and their top features with each other.

    Against the residual probe of the same dataset every probe is compared, under every dataset's covariance; against
    those of other datasets the chosen ones, under the covariance of either.

    Args:
        layer: the SAE's layer.
        train: the dataset.
        found: by reading, the directions.
        features: by reading, the directions [m, d] of features that tell what similarity is by chance.
    """
    rows = []
    for reading, here in found.items():
        of_reading = []
        for other in layer.probes:
            compared = here if other == train else [one for one in here if one.probe.selected]
            for covariance in ("", *layer.covariances) if other == train else ("", train, other):
                of_reading += _against_probe(layer, compared, features[reading], other, covariance)
        top = [one for one in here if one.probe.kind == "sparse_1"]
        of_reading += [row for covariance in ("", train) for row in _among(layer, top, features[reading], covariance)]
        rows += [row | {"train": train, "reading": reading} for row in of_reading]
    return rows


def _against_probe(
    layer: Layer, found: Sequence[SparseDirection], features: Floats, other: str, covariance: str
) -> list[dict[str, Any]]:
    probe = layer.probes[other][None]
    every = layer.measured(features, probe, covariance)
    vectors = np.array([one.vector for one in found])
    values = layer.measured(vectors, np.vstack([probe, layer.resampled[other]]), covariance)
    top = next((i for i, one in enumerate(found) if one.probe.kind == "sparse_1" and one.probe.selected), None)
    rows = []
    for one, (value, *spread) in zip(found, values, strict=True):
        many = one.probe.kind == "sparse_n"
        null = layer.measured(one.random, probe, covariance) if many else every
        row = _row(layer, covariance, float(value), spread, null, other_train=other, **_about(one))
        if many and top is not None:
            gain, *gains = np.r_[value, spread] - values[top]
            row |= Estimate(float(gain), *_quantiles(gains)).columns("gain_over_top")
        rows.append(row)
    return rows


def _among(layer: Layer, top: Sequence[SparseDirection], features: Floats, covariance: str) -> list[dict[str, Any]]:
    """Pairs of top features; by chance: pairs from an even sample of the SAE's features."""
    if len(top) < 2:
        return []
    vectors = np.array([one.vector for one in top])
    values = layer.measured(vectors, vectors, covariance)
    sample = features[np.linspace(0, len(features) - 1, min(len(features), 300)).astype(int)]
    null = layer.measured(sample, sample, covariance)[np.triu_indices(len(sample), 1)]
    rows = []
    for (i, one), (j, two) in combinations(enumerate(top), 2):
        about = _about(one) | {"other": "sparse_1", "other_rank": two.probe.rank}
        rows.append(_row(layer, covariance, float(values[i, j]), None, null, **about))
    return rows


def _about(one: SparseDirection) -> dict[str, Any]:
    probe = one.probe
    about = {"direction": probe.kind, "rank": probe.rank, "n_features": probe.n_features}
    return about | {"feature_ids": probe.feature_text, "selected": probe.selected}


def _row(
    layer: Layer, covariance: str, value: float, spread: ArrayLike | None, null: Floats, **about: Any
) -> dict[str, Any]:
    """A row of the table; `about` stands in place of what it says by default.

    `spread` [B] is the similarity over training bootstraps, None where nothing is resampled; `null`, of whatever shape,
    what it is by chance.
    """
    low, high = _quantiles(() if spread is None else spread)
    known = np.abs(null[~np.isnan(null)])
    null_low, null_median, null_high = np.quantile(known, [0.025, 0.5, 0.975]) if len(known) else [np.nan] * 3
    # a feature is among those that it is compared with: rounding must not make it less similar than itself
    below = float(np.mean(known < abs(value) - 1e-9)) if len(known) and not np.isnan(value) else np.nan
    unknown = "features are not resampled" if spread is None else "fewer than two training bootstraps"
    why = {
        "similarity": "a direction of no length or a score that does not vary" if np.isnan(value) else "",
        "similarity_low": unknown if np.isnan(low) else "",
        "null_median": "" if len(known) else "nothing to draw from",
    }
    default = {"rank": 0, "n_features": 0, "selected": True, "other": "residual", "other_rank": 0}
    return {
        **default,
        "layer": layer.number,
        "other_layer": layer.number,
        "measure": "mahalanobis" if covariance else "cosine",
        "covariance": covariance,
        **Estimate(value, low, high).columns("similarity"),
        "null_low": null_low,
        "null_median": null_median,
        "null_high": null_high,
        "null_percentile": below,
        "reason": reasons(why),
        **about,
    }


def _quantiles(values: ArrayLike) -> tuple[float, float]:
    known = np.asarray(values, dtype=np.float64)
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) > 1 else (np.nan, np.nan)
    return float(low), float(high)


def summarise(similarity: pd.DataFrame) -> list[str]:
    """Are top features closest to the linear probe, and do combinations come closer? A sentence a question and reading.

    Plain cosines with the residual probe of the same dataset decide.
    """
    told, chosen = [], _chosen(similarity).dropna(subset=["similarity"])
    for reading in READINGS:
        here = chosen[chosen["reading"] == reading]
        top, many = (here[here["direction"] == kind] for kind in ("sparse_1", "sparse_n"))
        if len(top):
            told.append(_top_sentence(reading, top))
        if len(many):
            told.append(_combination_sentence(reading, many))
    return told or ["No SAE probe can be compared with a residual probe."]


def _chosen(similarity: pd.DataFrame) -> pd.DataFrame:
    """The chosen SAE probes against the residual probe of the same training set, by their plain cosine."""
    same = (similarity["other"] == "residual") & (similarity["other_train"] == similarity["train"])
    sparse = similarity["direction"].isin(["sparse_1", "sparse_n"])
    return similarity[same & sparse & similarity["selected"] & (similarity["measure"] == "cosine")]


def _top_sentence(reading: str, top: pd.DataFrame) -> str:
    value, beyond = top["similarity"], int((top["similarity"].abs() > top["null_high"]).sum())
    return (
        f"{reading.capitalize()} directions: the top feature's cosine with the residual probe of its training set is "
        f"{value.mean():.2f} on average ({value.min():.2f} to {value.max():.2f} over {len(top)} pairs of SAE and "
        f"training set); {top['null_percentile'].mean():.0%} of the SAE's features are less similar, and in {beyond} "
        f"of {len(top)} pairs it lies beyond 97.5% of them."
    )


def _combination_sentence(reading: str, many: pd.DataFrame) -> str:
    gain, closer, farther = many["gain_over_top"], many["gain_over_top_low"] > 0, many["gain_over_top_high"] < 0
    return (
        f"{reading.capitalize()} directions: the N-sparse combination reaches {many['similarity'].mean():.2f} on "
        f"average, {gain.mean():+.2f} against the top feature. It is closer in {(gain > 0).sum()} of {len(many)} "
        f"pairs; over training bootstraps of the residual probe, clearly closer in {closer.sum()} and clearly farther "
        f"in {farther.sum()}. Combinations of as many random features reach {many['null_median'].mean():.2f}."
    )


def section(tables: Tables) -> Section:
    """What the report says of directions."""
    rows = _chosen(tables["similarity"])
    chance = Column("null_median", "number", "the median of chance", heading="random features, absolute")
    means = rows.groupby(["direction", "reading"], sort=False)[["similarity", "null_median", "gain_over_top"]].mean()
    top = means.loc[means.index.get_level_values("direction") == "sparse_1"].dropna(subset=["similarity"])
    told = [f"{row['similarity']:.2f} by its {row['reading']}" for row in top.reset_index().to_dict("records")]
    return Section(
        "similarity",
        "How near do features lie to the linear probe?",
        f"The cosine of the best feature with the residual stream probe is {' and '.join(told)}; for a random feature "
        f"it is {top['null_median'].mean():.2f}."
        if told
        else "No SAE probe can be compared with a residual stream probe.",
        "Directions in the coordinates of the residual stream. The decoder's direction is what a feature writes, the "
        "encoder's the linear part of what it reads; an N-sparse probe is read as the sum of either, with its weights. "
        "Two probes may point apart and still score alike where activations vary in few directions: the Mahalanobis "
        "cosine is the correlation of their scores.",
        TABLE.name,
        summarise(tables["similarity"]),
        [
            Picture("similarity_by_n", "Cosine with the residual probe by the number of features, one panel an SAE."),
            Picture("residual_cosines", "Cosines among the residual probes of all training sets, one panel a layer."),
        ],
        [
            look_up(
                means.reset_index(),
                "Means over SAEs and training sets",
                [
                    *TABLE.pick("direction", "reading", "similarity"),
                    chance,
                    Column("gain_over_top", "number", "", heading="more than the best feature", signed=True),
                ],
            ),
        ],
    )


ANALYSIS = Analysis(TABLE, compute, lambda study: [RESIDUAL, *by_sae(study)], params=("probe",), section=section)
