"""The datasets of a study as domains in the space of one SAE."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer import config, paths, probe_files, probes, store
from sae_transfer.generalization.domains import Domain
from sae_transfer.probes import Probe, ProbeParams, Training
from sae_transfer.stages import inputs
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.transfer import TransferParams, test_set


def read(sae: str, params: Mapping[str, Any]) -> list[Domain]:
    """Every dataset of the study under its own template, with the probes of the standard procedure at full size."""
    return [_domain(sae, name, params) for name in config.section(params, StudyParams, "study").datasets]


def _domain(sae: str, name: str, params: Mapping[str, Any]) -> Domain:
    seed, table = int(params["seed"]), inputs.prompt_table(name)
    labels, groups = table["label"].to_numpy(), table["group"].to_numpy().astype(str)
    is_train, is_test = own_rows(table)
    X = inputs.space_rows(sae, name, table)
    train = Training(sparse.csr_array(X[is_train]), labels[is_train], groups[is_train])
    test = test_set(labels[is_test], groups[is_test], name, seed, config.section(params, TransferParams, "transfer"))
    chosen = [probe for probe in probe_files.read(paths.PROBES / sae / name) if _standard(probe, len(train))]
    return Domain(
        name,
        train,
        sparse.csr_array(X[is_test]),
        test,
        frozenset(table["prompt"].iloc[[*is_train, *is_test]]),
        probes.ranked(train, seed, config.section(params, ProbeParams, "probe").at(sae, name)),
        *(next(probe for probe in chosen if probe.kind == kind) for kind in ("sparse_1", "sparse_n")),
    )


def write_by_sae(path: Path, tables: Sequence[pd.DataFrame]) -> None:
    """One CSV of the tables, which carry a column `sae`, in front. Six digits do not differ between platforms."""
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "sae", table.pop("sae"))
    store.write_text(path, table.to_csv(index=False, float_format="%.6g"))


def own_rows(table: pd.DataFrame) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The places of the training and of the test rows in a prompt table, under the dataset's own template."""
    own = table["variation"] == table["variation"].iloc[0]
    train, test = (np.flatnonzero(own & (table["split"] == split)) for split in ("train", "test"))
    return train, test


def _standard(probe: Probe, n_train: int) -> bool:
    return probe.selected and probe.n_train == n_train
