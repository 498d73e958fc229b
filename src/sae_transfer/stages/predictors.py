"""predictors: what tells beforehand that a feature generalises -> results/predictors.csv, artifacts/predictors/."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from sae_transfer import config, paths, probe_files, store
from sae_transfer.generalization import GeneralizationParams, candidates
from sae_transfer.generalization.candidates import Candidates, Stream
from sae_transfer.generalization.domains import Domain, pairs, same_rows
from sae_transfer.generalization.predictors import predicted_auc, predictors
from sae_transfer.generalization.statistics import few_labels, joined, separability, statistics, with_consensus
from sae_transfer.probes import ProbeParams, Training
from sae_transfer.records import generator
from sae_transfer.stages import domains, inputs, run
from sae_transfer.stages.inputs import StudyParams


def make_predictors() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    tables = []
    with threadpool_limits(1):  # matrices of a few hundred rows: threads would wait for each other
        for sae in study.saes:
            found = domains.read(sae, params)
            table = _candidates(sae, found, params)
            twins = {a.name: frozenset(b.name for b in found if same_rows(a, b)) for a in found}
            table = with_consensus(table).assign(predicted=predicted_auc(table, twins))
            store.write_table(paths.PREDICTORS / f"{sae}.parquet", table)
            tables.append(predictors(table, twins).assign(sae=sae))
    domains.write_by_sae(paths.RESULTS / "predictors.csv", tables)


def _candidates(sae: str, found: Sequence[Domain], params: Mapping[str, Any]) -> pd.DataFrame:
    """What is known of every candidate of each A for each B."""
    chosen, seed = config.section(params, GeneralizationParams, "generalization"), int(params["seed"])
    k = config.section(params, ProbeParams, "probe").n_folds
    streams = {domain.name: _stream(inputs.layer_of(sae, params), domain) for domain in found}
    made = {domain.name: _made(sae, domain, found, streams, params) for domain in found}
    few = {domain.name: few_labels(domain, chosen.few_labels, chosen.draws, seed) for domain in found}

    @cache
    def apart(a: str, b: str) -> float:
        rows = [Training(streams[d.name].rows, d.train.labels, d.train.groups) for d in found if d.name in (a, b)]
        return separability(rows[0], rows[1], k, seed)

    tables = [
        statistics(one, a, b, found, streams, few[b.name], apart(*sorted((a.name, b.name))))
        for a, b in pairs(found)
        if not same_rows(a, b)
        for one in made[a.name]
    ]
    return joined(tables)


def _made(
    sae: str, a: Domain, found: Sequence[Domain], streams: Mapping[str, Stream], params: Mapping[str, Any]
) -> tuple[Candidates, Candidates]:
    arrays, _ = store.read_arrays(paths.DIRECTIONS / f"{sae}.safetensors")
    directions = arrays["feature_ids"], arrays["decoder"]
    best = store.read_table(paths.BOOTSTRAP / sae / "features.parquet")
    top_k = config.section(params, ProbeParams, "probe").top_k
    frequency = candidates.selection_frequency(best, a.name, top_k)
    rng = generator(int(params["seed"]), "candidates", sae, a.name)
    return (
        candidates.features(a, found, directions, frequency, rng),
        candidates.whole_probes(a, found, streams, directions),
    )


def _stream(layer: int, domain: Domain) -> Stream:
    table = inputs.prompt_table(domain.name)
    rows = inputs.residual_rows(layer, domain.name, table)
    train, test = domains.own_rows(table)
    fitted = probe_files.read(paths.PROBES / f"layer_{layer}" / domain.name)
    full = {probe.kind: probe for probe in fitted if probe.n_train == len(train)}
    return Stream(rows[train], rows[test], full["residual"], full["mean_difference"])


if __name__ == "__main__":
    run(make_predictors)
