"""`sae-transfer preset`: whole studies to start from."""

import sys
from typing import Annotated

import typer


def show() -> None:
    """List the presets.

    Model, SAEs, datasets, gated or not, and what they cost (`doctor --preset` has the time).
    """
    from sae_transfer.pipeline import presets

    print("\n\n".join(presets.described(name) for name in presets.names()))


def use(
    name: Annotated[str, typer.Argument(help="A preset's name: `sae-transfer preset list`.")],
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite edits of params.yaml that are not committed.")
    ] = False,
) -> None:
    """Make params.yaml this preset.

    What it takes from the hub is pinned in pins/hub.json.
    """
    from sae_transfer.pipeline import presets

    presets.use(name, force=force)
    print(f"params.yaml is the preset {name}")
    pin()


def pin(
    update: Annotated[
        bool, typer.Option("--update", help="Also move what is pinned to the hub's newest commit.")
    ] = False,
) -> None:
    """Pin models and SAEs to their hub commits.

    Those of params.yaml, at the commits that they have now.
    """
    from sae_transfer.model import pins
    from sae_transfer.pipeline import presets
    from sae_transfer.pipeline.params import Params

    found, reasons = presets.pin(Params.read(), update=update)
    for name, commit in found.items():
        print(f"{pins.FILE}: {name} {commit}")
    for reason in reasons.values():
        print(f"warning: not pinned: {reason}", file=sys.stderr)
    if reasons:
        print("warning: `sae-transfer preset pin` tries again", file=sys.stderr)
