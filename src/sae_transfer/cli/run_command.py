"""`sae-transfer run`: a whole study, from params.yaml to the verdict."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    preset: Annotated[str, typer.Argument(help="Make params.yaml this preset first: `sae-transfer preset list`.")] = "",
) -> None:
    """Run a whole study, and say what was found.

    It checks params.yaml and makes what is missing or out of date.

    It runs `dvc repro`. What has not changed is kept, and a run that was killed goes on where it was.
    """
    from tqdm import tqdm

    from sae_transfer.cli import preset_commands, study_commands
    from sae_transfer.pipeline.reproduce import reproduce

    if preset:
        preset_commands.use(preset)
    study_commands.check()
    reproduce(Path(), tqdm.write)
    study_commands.summary()
