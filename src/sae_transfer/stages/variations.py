"""variations: every dataset that has prompt variations, trained and tested under each -> results/variations.csv."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from sae_transfer import config, paths, probe_files, probes, store, variations
from sae_transfer.probes import Matrix, Probe, ProbeParams
from sae_transfer.records import UserError
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.transfer import TransferParams, test_set


def vary() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    spaces = [*(f"layer_{layer}" for layer in params["model"]["layers"]), *study.saes]
    rows = []
    for dataset in study.datasets:
        prompts = inputs.prompt_table(dataset)
        if prompts["variation"].nunique() > 1:
            rows += [row for space in spaces for row in _of_space(space, dataset, prompts, params)]
    table = variations.table(rows)
    store.write_text(paths.RESULTS / "variations.csv", table.to_csv(index=False, float_format="%.6g"))
    print("\n".join(variations.answer(table)))


def _of_space(space: str, dataset: str, prompts: pd.DataFrame, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    X, templates = inputs.space_rows(space, dataset, prompts), list(prompts["variation"].unique())
    own = inputs.full_size(probe_files.read(paths.PROBES / space / dataset))
    fitted: dict[str, list[Probe] | str] = {templates[0]: own}
    with threadpool_limits(1):
        for template in templates[1:]:
            fitted[template] = _fit(space, dataset, X, prompts, params, template)
        fitted[variations.POOLED] = _fit(space, dataset, X, prompts, params, *templates)
    tests = {template: inputs.labelled(X, prompts, "test", template) for template in templates}
    first = tests[templates[0]]
    chosen = config.section(params, TransferParams, "transfer")
    test = test_set(first.labels, first.groups, dataset, int(params["seed"]), chosen)
    where = {"layer": inputs.layer_of(space, params), "space": space, "dataset": dataset}
    where["sae"] = "" if space.startswith("layer_") else space
    return [where | row for row in variations.variation_rows(fitted, tests, test)]


def _fit(
    space: str, dataset: str, X: Matrix, prompts: pd.DataFrame, params: Mapping[str, Any], *templates: str
) -> list[Probe] | str:
    """The probes trained under some templates, or why none could be."""
    train = inputs.labelled(X, prompts, "train", *templates)
    method = probes.residual if space.startswith("layer_") else probes.sparse_probes
    chosen = config.section(params, ProbeParams, "probe").at(space, dataset)
    try:
        fitted = method(train, int(params["seed"]), chosen)
    except UserError as error:  # such as too few features that fire: one template's matter, not the study's
        return str(error)
    return [replace(probe, n_train=len(train)) for probe in fitted]


if __name__ == "__main__":
    run(vary)
