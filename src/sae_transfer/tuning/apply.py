"""Winners into params.yaml, where the next `dvc repro` finds them. Every comment and every other line stays."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sae_transfer.core.params_editing import editing, flow
from sae_transfer.tuning.search_space import Choice
from sae_transfer.tuning.trials import Sweep, winner

MANY = ("sparse_n", "sparse_probes")  # what tables call N-sparse probes, alone or with 1-sparse ones


def winners(sweeps: Iterable[Sweep], n_max: int | None) -> dict[tuple[str, str], Choice]:
    """The best choice of every (SAE, A), with at most `n_max` features if given."""
    return {(sweep.space, sweep.train): winner(sweep, n_max).choice for sweep in sweeps}


def apply(path: Path, chosen: dict[tuple[str, str], Choice]) -> None:
    """Writes `probe.<space>.<A>` for every choice into the params file."""
    from ruamel.yaml.comments import CommentedMap

    with editing(path, "probe") as params:
        for (space, train), choice in chosen.items():
            params["probe"].setdefault(space, CommentedMap())[train] = _flow(choice)


def rows_of(tables: Mapping[str, pd.DataFrame], chosen: Collection[tuple[str, str]]) -> dict[str, int]:
    """How many rows of each table are of N-sparse probes of these (SAE, A), their controls, or means over them.

    Args:
        tables: of results/, by name. Those without such a row are left out.
        chosen: pairs of an SAE and a training set.
    """
    pairs = {*chosen, *((sae, "") for sae, _ in chosen)}  # a row without a training set is a mean over several
    counts = {}
    for name, table in tables.items():
        rows = table[table.isin(MANY).any(axis=1)]
        saes = rows["sae" if "sae" in rows else "space"] if len(rows) else pd.Series()
        trains = rows["train"].fillna("") if "train" in rows else [""] * len(rows)
        counts[name] = sum(pair in pairs for pair in zip(saes, trains, strict=True))
    return {name: count for name, count in counts.items() if count}


def _flow(choice: Choice) -> Any:
    """`{C_grid: [0.1], N: [8], ranking: auc, scaling: rms}`, on one line."""
    C = repr(choice.C)
    if "." not in C:
        C = C.replace("e", ".0e")  # YAML 1.1 takes 1e-05 for a text
    return flow(f"{{C_grid: [{C}], N: [{choice.N}], ranking: {choice.ranking}, scaling: {choice.scaling}}}")
