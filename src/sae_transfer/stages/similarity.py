"""similarity: cosines of probes and features -> results/similarity.csv."""

from collections.abc import Mapping
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from sae_transfer import alignment, config, features, paths, probe_files, probes, store
from sae_transfer.alignment import READINGS, Layer, SparseDirection
from sae_transfer.features import Directions
from sae_transfer.probes import Floats, Probe, ProbeParams
from sae_transfer.records import generator
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.transfer import describe

FEATURES = 2000  # of an SAE, drawn at random where it has more, tell how similar a feature is by chance
RANDOM = 40  # probes on random features, for each N


def similarity() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    layers = {number: _layer(number, study.datasets) for number in params["model"]["layers"]}
    rows = [row for layer in layers.values() for row in alignment.residual_rows(layer)]
    rows += [row for a, b in combinations(layers.values(), 2) for row in alignment.layer_rows(a, b)]
    for sae in study.saes:
        found = features.read_directions(paths.DIRECTIONS / f"{sae}.safetensors")
        draw = generator(int(params["seed"]), "features by chance", sae).permutation(len(found.feature_ids))
        every = {reading: getattr(found, reading)[np.sort(draw[:FEATURES])] for reading in READINGS}
        for train in study.datasets:
            chosen = _sparse_directions(sae, train, found, params)
            rows += alignment.sparse_rows(layers[inputs.layer_of(sae, params)], sae, train, chosen, every)
    table = alignment.table(rows)
    store.write_text(paths.RESULTS / "similarity.csv", table.to_csv(index=False, float_format="%.6g"))
    print("\n".join(alignment.answer(table)))


def _layer(number: int, datasets: tuple[str, ...]) -> Layer:
    space = f"layer_{number}"
    fitted = {name: inputs.full_size(probe_files.read(paths.PROBES / space / name)) for name in datasets}
    resampled, _ = store.read_arrays(paths.BOOTSTRAP / space / "probes.safetensors")
    return Layer(
        number,
        {name: _weights(fitted[name], "residual")[0] for name in datasets},
        {name: resampled[name] for name in datasets if name in resampled},
        {name: _weights(fitted[name], "shuffled_labels") for name in datasets},
        {name: np.cov(inputs.training(space, name).X, rowvar=False, dtype=np.float64) for name in datasets},
    )


def _weights(fitted: list[Probe], kind: str) -> Floats:
    """[probes of the kind, d_model]."""
    return np.array([p.weights for p in fitted if p.kind == kind]).reshape(-1, len(fitted[0].weights))


def _sparse_directions(sae: str, train: str, found: Directions, params: Mapping[str, Any]) -> list[SparseDirection]:
    """Both readings of every 1-sparse and N-sparse probe of one training set."""
    rows, chosen = inputs.training(sae, train), config.section(params, ProbeParams, "probe").at(sae, train)
    draw = generator(int(params["seed"]), "random features", sae, train)
    made = []
    for probe in inputs.full_size(probe_files.read(paths.PROBES / sae / train)):
        if probe.kind not in ("sparse_1", "sparse_n"):
            continue
        fit = partial(probes.sparse_n, rows, C=probe.C, selected=False, scaling=chosen.scaling)
        random = [
            fit(draw.permutation(found.feature_ids)[: len(probe.weights)])
            for _ in range(RANDOM if probe.kind == "sparse_n" else 0)
        ]
        for reading in READINGS:
            of_features = getattr(found, reading)
            vectors = np.array([_direction(one, found, of_features) for one in random])
            vector = _direction(probe, found, of_features)
            made.append(SparseDirection(describe(probe), reading, vector, vectors.reshape(-1, len(vector))))
    return made


def _direction(probe: Probe, found: Directions, of_features: Any) -> Floats:
    """sum_i w_i d_i over the probe's features, [d_model]."""
    at = np.searchsorted(found.feature_ids, np.asarray(probe.feature_ids))
    return np.asarray(probe.weights @ of_features[at], dtype=np.float64)


if __name__ == "__main__":
    run(similarity)
