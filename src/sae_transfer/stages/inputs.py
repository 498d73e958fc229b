"""What several stages read: a dataset's prompts, and its rows in a space."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sae_transfer import activations, config, features, paths, splits, store
from sae_transfer.config import Params
from sae_transfer.features import SaeParams
from sae_transfer.probes import Matrix, Probe, ProbeParams, Training
from sae_transfer.records import UserError, closest

WITHOUT_LAYER = ("text", "verbal")


class StudyParams(Params):
    """Section `study`: the names that the stages run over."""

    datasets: tuple[str, ...]
    saes: tuple[str, ...]
    saes_identity: str


def layer_of(space: str, params: Mapping[str, Any]) -> int:
    """The layer of a space: `layer_<L>`, or the name of an SAE.

    Raises:
        UserError: no such space (with the closest names).
    """
    layers = params["model"]["layers"]
    if space in params["study"]["saes"]:
        return config.section(params, SaeParams, "saes", space).layer
    names = [f"layer_{layer}" for layer in layers]
    if space not in names:
        raise UserError(f"space '{space}' is unknown; {closest(space, [*names, *params['study']['saes']])}")
    return int(space.removeprefix("layer_"))


def check_overrides(probe: ProbeParams, params: Mapping[str, Any]) -> None:
    """Refuses a `probe.<space>.<A>` that would change nothing.

    Raises:
        UserError: it names no space or no dataset of the params, or a layer's probe is told of N or of features.
    """
    spaces = [*params["saes"], *(f"layer_{layer}" for layer in params["model"]["layers"])]
    for space, trains in probe.overrides.items():
        if space not in spaces:
            raise UserError(f"params.yaml: probe.{space} names no space; {closest(space, spaces)}")
        for train, chosen in trains.items():
            where = f"probe.{space}.{train}"
            if train not in params["datasets"]:
                raise UserError(f"params.yaml: {where} names no dataset; {closest(train, params['datasets'])}")
            if space not in params["saes"] and (others := sorted(chosen.model_fields_set - {"C"})):
                raise UserError(f"params.yaml: {where}.{others[0]}: the probes of a layer have C alone; delete it")


def spaces(params: Mapping[str, Any]) -> list[str]:
    """Every space of the transfer table: the layers, the SAEs, then those without a layer."""
    return [*(f"layer_{layer}" for layer in params["model"]["layers"]), *params["study"]["saes"], *WITHOUT_LAYER]


def prompt_table(dataset: str) -> pd.DataFrame:
    """artifacts/prompts/<dataset>.parquet, one row a prompt; its order is that of activations and features."""
    return store.read_table(paths.PROMPTS / f"{dataset}.parquet")


def training_rows(table: pd.DataFrame) -> NDArray[np.bool_]:
    """[n], True for the rows that probes are trained on: the training split under the dataset's own template."""
    wanted: NDArray[np.bool_] = (
        (table["split"] == "train") & (table["variation"] == table["variation"].iloc[0])
    ).to_numpy()
    return wanted


def matched_sizes(labels: NDArray[np.int_], params: ProbeParams) -> list[NDArray[np.int64]]:
    """The training rows at each size that is trained on: all of them, and the matched number where there are more."""
    sizes = [np.arange(len(labels))]
    if params.matched_n_train < len(labels):
        sizes.append(splits.subset(labels, params.matched_n_train))
    return sizes


def prompt_ids(table: pd.DataFrame) -> list[str]:
    return list(table["variation"] + "/" + table["id"])


def residual_rows(layer: int, dataset: str, table: pd.DataFrame) -> NDArray[np.float32]:
    """[n, d_model], one row a row of `table`, which is the dataset's whole prompt table."""
    return activations.read(paths.ACTIVATIONS / dataset, layer, prompt_ids(table))


def space_rows(space: str, dataset: str, table: pd.DataFrame) -> Matrix:
    """The dataset's rows in a space: residual streams [n, d_model], or SAE features [n, d_sae] as CSR.

    Raises:
        UserError: missing, or made for other prompts.
    """
    if space.startswith("layer_"):
        return residual_rows(int(space.removeprefix("layer_")), dataset, table)
    encoded = features.read(paths.FEATURES / dataset, space)
    if encoded.shape[0] != len(table):
        raise UserError(f"{paths.FEATURES / dataset / space}.npz: made for other prompts; run `dvc repro`")
    return encoded


def split_rows(space: str, dataset: str, split: str) -> tuple[Matrix, NDArray[np.int_], NDArray[np.str_]]:
    """The rows of a split (`train` or `test`) in the dataset's own template: in the space, their labels and groups."""
    table = prompt_table(dataset)
    wanted = ((table["split"] == split) & (table["variation"] == table["variation"][0])).to_numpy()
    X = space_rows(space, dataset, table)[wanted]
    return X, table["label"].to_numpy()[wanted], table["group"].to_numpy().astype(str)[wanted]


def training(space: str, dataset: str) -> Training:
    """The dataset's training rows in a space, under its own template."""
    return Training(*split_rows(space, dataset, "train"))


def labelled(X: Matrix, table: pd.DataFrame, split: str, *variations: str) -> Training:
    """The rows of a split under some templates.

    Args:
        X: the dataset's rows in a space, one row a row of `table`.
        table: its whole prompt table.
        split: train or test.
        variations: names of templates.
    """
    at = np.flatnonzero((table["split"] == split) & table["variation"].isin(variations))
    rows = table.iloc[at]
    return Training(X[at], rows["label"].to_numpy(), rows["group"].to_numpy().astype(str))


def full_size(probes: list[Probe]) -> list[Probe]:
    """The probes that were trained on all of A's training rows, without those at the matched size."""
    largest = max(probe.n_train for probe in probes)
    return [probe for probe in probes if probe.n_train == largest]
