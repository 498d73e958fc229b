"""saes: SAEs on the same layer against each other -> results/saes.csv, splitting.csv and matches.csv."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from scipy import sparse
from threadpoolctl import threadpool_limits

from sae_transfer import config, features, paths, probe_files, sae_comparison, splitting, store
from sae_transfer.features import Directions
from sae_transfer.probes import Probe, ProbeParams, Training
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.transfer import TestSet, TransferParams, reference, test_set

KINDS = ("sparse_1", "sparse_n")


@dataclass(frozen=True)
class Sae:
    """One SAE of the study: its rows and its probes by dataset."""

    name: str
    layer: int
    train: dict[str, Training]
    test: dict[str, Training]
    probes: dict[str, list[Probe]]
    directions: Directions

    def chosen(self, kind: str, train: str) -> Probe:
        return next(probe for probe in self.probes[train] if probe.kind == kind and probe.selected)


def compare() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    saes = [_read(name, study.datasets, params) for name in study.saes]
    tests = _tests(saes, params)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with threadpool_limits(1):
        for layer in dict.fromkeys(sae.layer for sae in saes):
            here = [sae for sae in saes if sae.layer == layer]
            rows["saes"] += [{"layer": layer} | row for row in _comparison(here, tests)]
            for sae, other in permutations(here, 2):
                where = {"layer": layer, "sae": sae.name, "other": other.name}
                rows["splitting"] += [where | row for row in _splitting(sae, other, tests, params)]
                rows["matches"] += [where | row for row in _matches(sae, other)]
    split = splitting.table(rows["splitting"], splitting.SPLITTING)
    tables = {
        "saes": sae_comparison.table(rows["saes"]),
        "splitting": split,
        "matches": splitting.table(rows["matches"], splitting.MATCHES),
    }
    for name, table in tables.items():
        store.write_text(paths.RESULTS / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    print("\n".join(sae_comparison.answer(tables["saes"]) + splitting.answer(split)))


def _read(name: str, datasets: tuple[str, ...], params: Mapping[str, Any]) -> Sae:
    train, test = {}, {}
    for dataset in datasets:
        prompts = inputs.prompt_table(dataset)
        X, own = inputs.space_rows(name, dataset, prompts), prompts["variation"].iloc[0]
        train[dataset], test[dataset] = (inputs.labelled(X, prompts, split, own) for split in ("train", "test"))
    fitted = {dataset: inputs.full_size(probe_files.read(paths.PROBES / name / dataset)) for dataset in datasets}
    found = features.read_directions(paths.DIRECTIONS / f"{name}.safetensors")
    return Sae(name, inputs.layer_of(name, params), train, test, fitted, found)


def _tests(saes: list[Sae], params: Mapping[str, Any]) -> dict[str, TestSet]:
    chosen, seed = config.section(params, TransferParams, "transfer"), int(params["seed"])
    rows = saes[0].test if saes else {}
    return {name: test_set(one.labels, one.groups, name, seed, chosen) for name, one in rows.items()}


def _comparison(saes: list[Sae], tests: Mapping[str, TestSet]) -> list[dict[str, Any]]:
    facts = {}
    for sae in saes:
        health = {name: features.read_health(paths.FEATURES / name, sae.name) for name in tests}
        width = next(one.width for one in health.values())
        facts[sae.name] = {"width": width, "objective": sae.directions.objective, "health": health}
    rows = []
    for kind in KINDS:
        areas = {
            sae.name: {
                (a, b): reference(sae.chosen(kind, a).score(sae.test[b].X), test)
                for a in tests
                for b, test in tests.items()
            }
            for sae in saes
        }
        groups = {name: test.effective_groups for name, test in tests.items()}
        rows += [{"probe": kind} | row for row in sae_comparison.comparison_rows(areas, facts, groups)]
    return rows


def _splitting(sae: Sae, other: Sae, tests: Mapping[str, TestSet], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    n_folds, seed = config.section(params, ProbeParams, "probe").n_folds, int(params["seed"])
    about = {"width": sae.train[next(iter(tests))].X.shape[1], "objective": sae.directions.objective}
    about |= {"other_width": other.train[next(iter(tests))].X.shape[1], "other_objective": other.directions.objective}
    rows = []
    for a in tests:
        found = splitting.family(sae.chosen("sparse_1", a), sae.train[a], other.train[a], n_folds, seed)
        for b, test in tests.items():
            where = about | {"train": a, "test": b, "in_domain": a == b, "n_train": len(sae.train[a])}
            rows += [where | row for row in splitting.split_rows(found, sae.test[b].X, other.test[b].X, test)]
    return rows


def _matches(sae: Sae, other: Sae) -> list[dict[str, Any]]:
    trains = defaultdict(list)
    for dataset, fitted in sae.probes.items():
        for probe in fitted:
            if probe.kind == "sparse_1" and probe.feature_ids is not None:
                trains[int(probe.feature_ids[0])].append(dataset)
    top = {feature: " ".join(names) for feature, names in sorted(trains.items())}
    X, Y = (sparse.csr_array(sparse.vstack([one.X for one in each.train.values()])) for each in (sae, other))
    return splitting.match_rows(top, X, Y, sae.directions, other.directions)


if __name__ == "__main__":
    run(compare)
