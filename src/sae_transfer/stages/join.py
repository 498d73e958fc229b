"""join: the tables of every space -> results/transfer.csv, bootstrap.csv, bootstrap_features.csv and metrics.json."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sae_transfer import config, paths, stability, store
from sae_transfer.report import numbers
from sae_transfer.stages import run
from sae_transfer.stages.inputs import StudyParams


def join() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    spaces = [f"layer_{layer}" for layer in params["model"]["layers"]] + list(study.saes)
    bootstrap = _joined([paths.BOOTSTRAP_TABLES / f"{space}.csv" for space in spaces])
    stable = _joined([paths.BOOTSTRAP_TABLES / f"{sae}_features.csv" for sae in study.saes])
    table = stability.with_train_sd(_joined([paths.TRANSFER / f"{space}.parquet" for space in spaces]), bootstrap)
    for name, joined in (("transfer", table), ("bootstrap", bootstrap), ("bootstrap_features", stable)):
        # six digits are more than any number here is worth, and do not differ between platforms as the last bits do
        store.write_text(paths.RESULTS / f"{name}.csv", joined.to_csv(index=False, float_format="%.6g"))
    store.write_json(paths.RESULTS / "metrics.json", numbers.summary(table))


def _joined(tables: Sequence[Path]) -> pd.DataFrame:
    return pd.concat([store.read_table(path) for path in tables], ignore_index=True) if tables else pd.DataFrame()


if __name__ == "__main__":
    run(join)
