"""A transfer table of made-up scores that is true to the schema: every row comes from transfer.cell and describe."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from sae_transfer.analyses import stability
from sae_transfer.probing.evaluations import TransferParams, bootstrapped_auc, evaluation_of
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.scoring import cell, describe, repeated_cell
from sae_transfer.results.transfer_table import TRANSFER

KINDS = ("residual", "mean_difference", "sparse_1", "sparse_n")
TransferParams.__test__ = False  # type: ignore[attr-defined]


def table(
    datasets: Sequence[str],
    saes: dict[str, int],
    *,
    variations: dict[str, Sequence[str]] | None = None,
    n_test: int = 40,
    top_k: int = 2,
    sizes: Sequence[int] = (2, 4),
    resamples: int = 50,
    n_groups: dict[str, int] | None = None,
) -> pd.DataFrame:
    """Spaces `layer_<L>` for every layer of `saes` (name -> layer), then the SAEs, and among them `text` and `verbal`.

    `sizes` are the N of sparse_n.
    """
    layers = sorted(set(saes.values()))
    spaces = [(f"layer_{layer}", layer, "") for layer in layers] + [(sae, layer, sae) for sae, layer in saes.items()]
    rng, rows = np.random.default_rng(0), []
    strength = {(a, b): 2.2 if a == b else rng.uniform(-0.4, 1.8) for a in datasets for b in datasets}
    for space, layer, sae in spaces:
        for b in datasets:
            for variation in ("default", *(variations or {}).get(b, ())):
                labels = np.arange(n_test) % 2
                groups = np.char.add("g", (np.arange(n_test) % (n_groups or {}).get(b, n_test)).astype(str))
                test = evaluation_of(labels, groups, b, 0, TransferParams(resamples=resamples))
                for a in datasets:
                    where = {"model": "tiny", "layer": layer, "space": space, "sae": sae, "train": a, "test": b}
                    where |= {"in_domain": a == b, "train_variation": "default", "test_variation": variation}
                    where |= {"condition": "test", "n_test": n_test, "n_overlap": 0, "n_groups": test.n_groups}
                    rows += [where | row for row in _rows(rng, test, a, strength[a, b], sae, layer, top_k, sizes)]
                if not sae and layer == layers[0]:
                    rows += _without_layer(test, b, datasets, variation)
    return TRANSFER.frame(rows).astype({"layer": "Int64"})


def _without_layer(test, b, datasets, variation):
    """The spaces `text` and `verbal`, whose rows have no layer."""
    rng = np.random.default_rng(1)
    where = {"model": "tiny", "layer": pd.NA, "sae": "", "test": b, "train_variation": "default", "condition": "test"}
    where |= {"test_variation": variation, "n_test": len(test.labels), "n_overlap": 0, "n_groups": test.n_groups}
    for a in datasets:
        for family in ("tfidf", "length", "overlap"):
            probe = Probe("text", family, np.ones(1), 0.0, C=0.1, cv_auc=0.6, n_train=240, input=family)
            here = where | {"space": "text", "train": a, "in_domain": a == b}
            yield here | describe(probe) | cell(probe, rng.normal(size=len(test.labels)), test, None)
    verbal = Probe("verbal", "verbal", np.ones(1), 0.0)
    here = where | {"space": "verbal", "train": b, "in_domain": True}
    yield here | describe(verbal) | cell(verbal, test.labels + rng.normal(size=len(test.labels)), test, None)


def bootstrap_tables(transfer: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The spread of the AUC of every probe under B's own template, and a feature that is always selected first."""
    own = transfer[(transfer["probe"] != "shuffled_labels") & (transfer["test_variation"] == "default")]
    spread = pd.concat([own.assign(resampling=name) for name in ("bootstrap", "half_sample")])
    spread = spread.assign(resamples=20, auc_mean=spread["auc"], auc_sd=0.01, reason="")
    stable = {"feature": 1, "resampling": "bootstrap", "resamples": 20, "rank": 1, "selected_first": 1.0, "reason": ""}
    features = own[own["rank"] == 1].drop_duplicates(["space", "train"]).assign(**stable)
    return spread[stability.BOOTSTRAP.names], features.reindex(columns=stability.BOOTSTRAP_FEATURES.names)


def _rows(rng, test, train, strength, sae, layer, top_k, sizes):
    noise = rng.normal(size=len(test.labels))

    def scores(power):
        own = 0.6 * noise + 0.8 * rng.normal(size=len(noise))
        return own + power * strength * (2 * test.labels - 1) * (0.8 + 0.1 * layer)

    against = bootstrapped_auc(scores(1.0), test)
    one = np.ones(1)
    if not sae:
        found = [
            (Probe("residual", "residual", one, 0.0, C=0.1, cv_auc=0.95, n_train=240), 1.0),
            (Probe("mean_difference", "residual", one, 0.0, cv_auc=0.93, n_train=240), 0.85),
            (Probe("pca", "residual", one, 0.0, C=0.1, cv_auc=0.9, n_train=240, n_components=4), 0.8),
            (Probe("target_trained", "residual", one, 0.0, C=0.1, cv_auc=0.95, n_train=240), 1.2),
        ]
    else:
        ids = np.random.default_rng(len(sae) + sum(map(ord, train))).permutation(64)
        found = [
            (_sparse("sparse_1", ids[[i]], rank=i + 1, selected=i == 0), 0.55 - 0.03 * i) for i in range(top_k)
        ] + [
            (_sparse("sparse_n", ids[:n], selected=i == len(sizes) - 2), 0.6 + 0.06 * np.log2(n))
            for i, n in enumerate(sizes)
        ]
        found.append((Probe("reconstruction", "residual", one, 0.0, C=0.1, cv_auc=0.9, n_train=240), 0.9))
        found += [(replace(probe, kind="target_trained"), 1.0) for probe, _ in found if probe.rank == 1]
    for probe, power in found:
        density = {} if probe.feature_ids is None else {"density": 0.5}
        yield describe(probe) | density | cell(probe, scores(power), test, against)
    for family in ("sparse_1", "sparse_n") if sae else ("residual",):
        ids = np.arange(1 if family == "sparse_1" else sizes[-2]) if sae else None
        for kind in ("shuffled_labels", "random_features", "random_sae") if sae else ("shuffled_labels",):
            repeats = [
                Probe(kind, family, one if ids is None else np.ones(len(ids)), 0.0, ids, repeat=i, n_train=240)
                for i in range(20)
            ]
            yield describe(repeats[0]) | repeated_cell(repeats, list(rng.normal(size=(20, len(noise)))), test, against)


def _sparse(kind, ids, rank=0, selected=True):
    return Probe(kind, kind, np.ones(len(ids)), 0.0, ids, 1.0, rank, 0, selected, "rms", "auc", cv_auc=0.9, n_train=240)
