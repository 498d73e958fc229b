"""The option by which a command looks at another study than params.yaml."""

from pathlib import Path
from typing import Annotated

import typer

from sae_transfer import config
from sae_transfer.records import UserError, closest

PRESETS = Path("presets")

ParamsFile = Annotated[
    str, typer.Option("--params", "--preset", metavar="NAME", help="A params file, or the name of a preset.")
]


def chosen_params(name: str) -> config.Section:
    """The params file of this name, or the preset.

    Raises:
        UserError: neither is there (with the closest presets).
    """
    preset = PRESETS / f"{name}.yaml"
    if preset.is_file() or Path(name).is_file() or Path(name) == config.PARAMS_FILE:
        return config.read(preset if preset.is_file() else Path(name))
    raise UserError(f"{name}: neither a file nor a preset; {closest(name, [p.stem for p in PRESETS.glob('*.yaml')])}")
