"""Winners into params.yaml, where the next `dvc repro` finds them. Every comment and every other line stays."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sae_transfer.core.params_editing import editing, flow
from sae_transfer.tuning.search_space import Choice
from sae_transfer.tuning.trials import Sweep, winner


def winners(sweeps: Iterable[Sweep], n_max: int | None) -> dict[tuple[str, str], Choice]:
    """The best choice of every (SAE, A), with at most `n_max` features if given."""
    return {(sweep.space, sweep.train): winner(sweep, n_max).choice for sweep in sweeps}


def apply(path: Path, chosen: dict[tuple[str, str], Choice]) -> None:
    """Writes `probe.<space>.<A>` for every choice into the params file."""
    from ruamel.yaml.comments import CommentedMap

    with editing(path, "probe") as params:
        for (space, train), choice in chosen.items():
            params["probe"].setdefault(space, CommentedMap())[train] = _flow(choice)


def _flow(choice: Choice) -> Any:
    """`{C_grid: [0.1], N: [8], ranking: auc, scaling: rms}`, on one line."""
    C = repr(choice.C)
    if "." not in C:
        C = C.replace("e", ".0e")  # YAML 1.1 takes 1e-05 for a text
    return flow(f"{{C_grid: [{C}], N: [{choice.N}], ranking: {choice.ranking}, scaling: {choice.scaling}}}")
