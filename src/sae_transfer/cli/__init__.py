"""What a person types: `sae-transfer COMMAND`. `dvc repro` runs the study; these commands look after it."""

import sys

import typer

from sae_transfer.cli import compare, data, machine, preset, score, study, sweep, ui
from sae_transfer.records import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.command()(study.check)
app.command()(study.prune)
app.command()(study.summary)
app.command()(compare.compare)
app.command()(score.score)
app.command()(sweep.sweep)
app.command()(sweep.dashboard)
app.command()(machine.doctor)
app.command()(ui.ui)

data_app = typer.Typer(no_args_is_help=True, help="Datasets under data/.")
data_app.command()(data.generate)
data_app.command()(data.fetch)
data_app.command()(data.check)
app.add_typer(data_app, name="data")

preset_app = typer.Typer(no_args_is_help=True, help="Whole studies to start from: presets/NAME.yaml.")
preset_app.command("list")(preset.show)
preset_app.command()(preset.use)
preset_app.command()(preset.pin)
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
