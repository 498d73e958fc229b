"""join: the tables of every space -> results/transfer.csv, bootstrap.csv, and bootstrap_features.csv."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sae_transfer import config, paths, stability, store
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.transfer import COLUMNS


def join() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    spaces = inputs.spaces(params)
    with_layer = [space for space in spaces if space not in inputs.WITHOUT_LAYER]
    bootstrap = _joined([paths.BOOTSTRAP_TABLES / f"{space}.csv" for space in with_layer], stability.COLUMNS)
    stable = _joined([paths.BOOTSTRAP_TABLES / f"{sae}_features.csv" for sae in study.saes], stability.FEATURE_COLUMNS)
    table = _joined([paths.TRANSFER / f"{space}.parquet" for space in spaces], COLUMNS)
    table = stability.with_train_sd(table, bootstrap)
    for name, joined in (("transfer", table), ("bootstrap", bootstrap), ("bootstrap_features", stable)):
        # six digits are more than any number here is worth, and do not differ between platforms as the last bits do
        store.write_text(paths.RESULTS / f"{name}.csv", joined.to_csv(index=False, float_format="%.6g"))


def _joined(files: Sequence[Path], columns: Sequence[str]) -> pd.DataFrame:
    """The tables one below the other; without a row (a study without SAEs has no features) the columns alone."""
    tables = [table for table in map(store.read_table, files) if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(columns))


if __name__ == "__main__":
    run(join)
