"""regimes: probes trained on few rows, unbalanced ones, wrong labels; an empty table unless params name datasets."""

from typing import Any

import pandas as pd
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from sae_transfer import config, paths, regimes, store
from sae_transfer.probes import ProbeParams, Training
from sae_transfer.regimes import RegimeParams, Setting
from sae_transfer.stability import HeldOut, by_column
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams

PROCESSES = 2


def measure_regimes() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    chosen = config.section(params, RegimeParams, "regimes")
    if not chosen.datasets:
        print("regimes are off: name training sets in params.yaml under regimes.datasets")
    spaces = {layer: [f"layer_{layer}"] for layer in params["model"]["layers"]}
    for sae in study.saes:
        spaces[inputs.layer_of(sae, params)].append(sae)
    tasks = [(layer, dataset) for dataset in chosen.datasets for layer in spaces]
    found = Parallel(n_jobs=min(PROCESSES, max(len(tasks), 1)))(
        delayed(_of_layer)(dataset, layer, spaces[layer], study.datasets, dict(params)) for layer, dataset in tasks
    )
    table = pd.DataFrame([row for rows in found for row in rows], columns=list(regimes.COLUMNS))
    store.write_text(paths.RESULTS / "regimes.csv", table.to_csv(index=False, float_format="%.6g"))


def _of_layer(
    dataset: str, layer: int, spaces: list[str], datasets: tuple[str, ...], params: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows of one A in a layer's residual stream and in the SAEs on it."""
    probe = config.section(params, ProbeParams, "probe")
    train = {space: Training(*inputs.split_rows(space, dataset, "train")) for space in spaces}
    tests = {space: {test: _held_out(space, test) for test in datasets} for space in spaces}
    setting = Setting(tests, int(params["seed"]), {space: probe.at(space, dataset) for space in spaces})
    chosen = config.section(params, RegimeParams, "regimes")
    with threadpool_limits(1):
        rows = list(regimes.rows(dataset, train, setting, chosen))
    return [row | {"layer": layer, "sae": "" if row["space"] == spaces[0] else row["space"]} for row in rows]


def _held_out(space: str, dataset: str) -> HeldOut:
    X, labels, _ = inputs.split_rows(space, dataset, "test")
    return by_column(X, labels)


if __name__ == "__main__":
    run(measure_regimes)
