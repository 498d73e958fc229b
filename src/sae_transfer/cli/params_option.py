"""The option by which a command looks at another study than params.yaml."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.params_section import PARAMS_FILE

if TYPE_CHECKING:
    from sae_transfer.pipeline.params import Params

PRESETS = Path("presets")

ParamsFile = Annotated[
    str, typer.Option("--params", "--preset", metavar="NAME", help="A params file, or the name of a preset.")
]


def chosen_params(name: str) -> "Params":
    """The params file of this name, or the preset.

    Raises:
        UserError: neither is there (with the closest presets), or it is wrong.
    """
    from sae_transfer.pipeline.params import Params

    preset = PRESETS / f"{name}.yaml"
    if preset.is_file() or Path(name).is_file() or Path(name) == PARAMS_FILE:
        return Params.read(preset if preset.is_file() else Path(name))
    raise UserError(f"{name}: neither a file nor a preset; {closest(name, [p.stem for p in PRESETS.glob('*.yaml')])}")
