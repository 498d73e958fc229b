"""calibration: thresholds and probabilities of A's probes on B -> results/calibration.csv."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits

from sae_transfer import calibration, config, paths, probe_files, probes, store
from sae_transfer.calibration import LABELS, Home, Scored
from sae_transfer.probes import Probe, ProbeParams, Training
from sae_transfer.records import generator
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.transfer import TestSet, TransferParams, reference, test_set

KINDS = ("residual", "mean_difference", "sparse_1", "sparse_n")


def calibrate() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    spaces = [*(f"layer_{layer}" for layer in params["model"]["layers"]), *study.saes]
    with threadpool_limits(1):
        rows = [row for space in spaces for row in _of_space(space, study.datasets, params)]
    table = calibration.table(rows)
    store.write_text(paths.RESULTS / "calibration.csv", table.to_csv(index=False, float_format="%.6g"))
    print("\n".join(calibration.answer(table)))


def _of_space(space: str, datasets: tuple[str, ...], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    seed, chosen = int(params["seed"]), config.section(params, TransferParams, "transfer")
    train, test, resampled = {}, {}, {}
    for name in datasets:
        prompts = inputs.prompt_table(name)
        X = inputs.space_rows(space, name, prompts)
        train[name], test[name] = (
            inputs.labelled(X, prompts, split, prompts["variation"].iloc[0]) for split in ("train", "test")
        )
        resampled[name] = test_set(test[name].labels, test[name].groups, name, seed, chosen)
    rows = []
    for a in datasets:
        unseen = _held_out(space, a, train[a], params)
        for probe in inputs.full_size(probe_files.read(paths.PROBES / space / a)):
            if probe.kind in KINDS and probe.selected:
                rows += _of_probe(probe, a, train, test, resampled, unseen[probe.kind], seed)
    layer, sae = inputs.layer_of(space, params), "" if space.startswith("layer_") else space
    return [{"layer": layer, "space": space, "sae": sae} | row for row in rows]


def _held_out(space: str, dataset: str, train: Training, params: Mapping[str, Any]) -> dict[str, Scored]:
    chosen = config.section(params, ProbeParams, "probe").at(space, dataset)
    methods = (probes.residual, probes.mean_difference) if space.startswith("layer_") else (probes.sparse_probes,)
    found: dict[str, Scored] = {}
    for method in methods:
        found |= calibration.held_out(train, partial(method, params=chosen), chosen.n_folds, int(params["seed"]))
    return found


def _of_probe(
    probe: Probe,
    a: str,
    train: Mapping[str, Training],
    test: Mapping[str, Training],
    resampled: Mapping[str, TestSet],
    unseen: Scored,
    seed: int,
) -> list[dict[str, Any]]:
    inside = reference(calibration.logits(probe, test[a].X), resampled[a])
    home = Home(inside.auc, inside.resampled, resampled[a].effective_groups)
    rows = []
    for b, target in train.items():
        # in domain, rows that trained the probe are scored by those that did not see them
        scored = unseen if a == b else Scored(calibration.logits(probe, target.X), target.labels)
        moves = {k: calibration.shifts(scored, k, generator(seed, "labels", b, k)) for k in LABELS}
        found = calibration.calibration_rows(
            calibration.logits(probe, test[b].X), resampled[b], unseen, moves, None if a == b else home
        )
        about = {"train": a, "test": b, "in_domain": a == b, "probe": probe.kind}
        about |= {"n_train": probe.n_train, "n_test": len(test[b])}
        rows += [about | row for row in found]
    return rows


if __name__ == "__main__":
    run(calibrate)
