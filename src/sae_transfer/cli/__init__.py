"""Do sparse-autoencoder features mean the same thing everywhere? Commands to run a study and to look after it.

`sae-transfer run` does everything. The others each do one thing.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sae_transfer.cli import (
    compare_command,
    data_commands,
    doctor_command,
    import_command,
    preset_commands,
    run_command,
    score_command,
    study_commands,
    sweep_commands,
    ui_command,
)
from sae_transfer.core.errors import UserError


class Commands(TyperGroup):
    """Where every command ends: a person's mistake is one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            if ctx.params["debug"]:
                raise
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("\nstopped; what was finished is kept, and the same command goes on from there", file=sys.stderr)
            sys.exit(130)


def print_version(wanted: bool) -> None:
    """Prints the version and ends."""
    if wanted:
        from importlib.metadata import version

        print(version("sae-transfer"))
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a mistake.")] = False,
) -> None:
    """What stands before a command."""


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(help=__doc__)(options)
app.command()(run_command.run)
app.command()(study_commands.check)
app.command()(study_commands.summary)
app.command()(compare_command.compare)
app.command()(score_command.score)
app.command("import-activations")(import_command.import_activations)
app.command()(sweep_commands.sweep)
app.command()(sweep_commands.dashboard)
app.command()(doctor_command.doctor)
app.command()(ui_command.ui)

data_app = typer.Typer(no_args_is_help=True, help="Datasets under data/.")
data_app.command()(data_commands.generate)
data_app.command()(data_commands.fetch)
data_app.command()(data_commands.check)
app.add_typer(data_app, name="data")

preset_app = typer.Typer(no_args_is_help=True, help="Whole studies to start from: presets/NAME.yaml.")
preset_app.command("list")(preset_commands.show)
preset_app.command()(preset_commands.use)
preset_app.command()(preset_commands.pin)
app.add_typer(preset_app, name="preset")


def main() -> None:
    """Runs the command of the command line."""
    app()
