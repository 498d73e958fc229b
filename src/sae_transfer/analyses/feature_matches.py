"""Feature matches: which feature of another SAE on the same layer is nearest to one's top features."""

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sae_transfer.analyses.analysis import Analysis, by_sae
from sae_transfer.analyses.feature_splitting import neighbours
from sae_transfer.artifacts.features import Directions
from sae_transfer.core.arrays import Floats
from sae_transfer.results.schema import REASON, Column, Table, integers, numbers, texts
from sae_transfer.results.transfer_table import TRANSFER
from sae_transfer.stats.correlations import correlations
from sae_transfer.stats.cosines import cosine

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

TABLE = Table(
    "matches",
    "one row a (sae, other, feature of sae), for the top features of every A",
    (
        *TRANSFER.pick("layer", "sae"),
        *texts(other="another SAE on the same layer"),
        *integers(feature="the feature of sae"),
        *texts(trains="the datasets among whose top K the feature is"),
        *integers(nearest="the feature of other whose decoder direction has the highest cosine with this one's"),
        *numbers(cosine="that cosine"),
        *integers(partner="the feature of other whose activations on all training rows correlate most with this one's"),
        *numbers(
            correlation="that correlation",
            contained="the share of the partner's firing rows on which this feature fires too",
        ),
        Column("same", "flag", "whether nearest and partner are one feature"),
        REASON,
    ),
)


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one SAE in every other on its layer."""
    sae, trains, rows = study.space(part), defaultdict[int, list[str]](list), []
    for dataset in study.datasets:
        for probe in study.full_probes(sae, dataset):
            if probe.kind == "sparse_1" and probe.feature_ids is not None:
                trains[int(probe.feature_ids[0])].append(dataset)
    top = {feature: " ".join(names) for feature, names in sorted(trains.items())}
    for other in neighbours(study, sae):
        X, Y = (sparse.csr_array(sparse.vstack([study.rows(of, a).X for a in study.datasets])) for of in (sae, other))
        about = {"layer": sae.layer, "sae": sae.name, "other": other.name}
        rows += [about | row for row in match_rows(top, X, Y, study.directions(sae), study.directions(other))]
    return TABLE.frame(rows).astype({"nearest": "Int64", "partner": "Int64"})


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


ANALYSIS = Analysis(TABLE, compute, by_sae, params=())
