"""What a person types: `sae-transfer COMMAND`. `dvc repro` runs the study; these commands look after it."""

import sys

import typer

from sae_transfer.cli import (
    compare_command,
    data_commands,
    doctor_command,
    import_command,
    preset_commands,
    score_command,
    study_commands,
    sweep_commands,
    ui_command,
)
from sae_transfer.core.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
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
    """Runs the command; a person's mistake is one line on stderr and exit code 2, with --debug its traceback too."""
    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        app(args=arguments)
    except UserError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
