"""Winners into params.yaml, where the next `dvc repro` finds them. Every comment and every other line stays."""

import io
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sae_transfer.core import files
from sae_transfer.tuning.search_space import Choice
from sae_transfer.tuning.trials import Sweep, winner

MANY = ("sparse_n", "sparse_probes")  # what tables call N-sparse probes, alone or with 1-sparse ones


def winners(sweeps: Iterable[Sweep], n_max: int | None) -> dict[tuple[str, str], Choice]:
    """The best choice of every (SAE, A), with at most `n_max` features if given."""
    return {(sweep.space, sweep.train): winner(sweep, n_max).choice for sweep in sweeps}


def apply(path: Path, chosen: dict[tuple[str, str], Choice]) -> None:
    """Writes `probe.<space>.<A>` for every choice into the params file."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 10_000
    yaml.representer.add_representer(type(None), _null)
    params = yaml.load(path.read_text(encoding="utf-8"))
    section = params["probe"]
    before = _last(section)
    for (space, train), choice in chosen.items():
        section.setdefault(space, CommentedMap())[train] = _flow(choice)
    _move_gap(before, _last(section))
    text = io.StringIO()
    yaml.dump(params, text)
    files.write_text(path, text.getvalue())


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
    from ruamel.yaml import YAML

    C = repr(choice.C)
    if "." not in C:
        C = C.replace("e", ".0e")  # YAML 1.1 takes 1e-05 for a text
    return YAML().load(f"{{C_grid: [{C}], N: [{choice.N}], ranking: {choice.ranking}, scaling: {choice.scaling}}}")


def _null(representer: Any, _: None) -> Any:
    """`null` as it is written in params.yaml; ruamel would leave the place empty."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _last(section: Any) -> tuple[Any, str]:
    """The mapping and the key of a section's last line."""
    from ruamel.yaml.comments import CommentedMap

    key = list(section)[-1]
    inner = section[key]
    block = isinstance(inner, CommentedMap) and len(inner) and not inner.fa.flow_style()
    return _last(inner) if block else (section, key)


def _move_gap(before: tuple[Any, str], after: tuple[Any, str]) -> None:
    """The empty lines and comments before the next section, which ruamel counts to the last line of this one."""
    from ruamel.yaml.error import CommentMark
    from ruamel.yaml.tokens import CommentToken

    mapping, key = before
    token = (mapping.ca.items.get(key) or [None] * 3)[2]
    if token is None or (before[0] is after[0] and key == after[1]):
        return
    own, gap = token.value.split("\n", 1)
    token.value = f"{own}\n"
    if gap:
        mapping, key = after
        mapping.ca.items[key] = [None, None, CommentToken(f"\n{gap}", CommentMark(0), None), None]
