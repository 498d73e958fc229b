"""What dvc.yaml runs: one thin file a stage, each reads, makes one pure call, and writes."""

import inspect
import sys
from collections.abc import Callable

from sae_transfer.records import UserError


def run(stage: Callable[..., None]) -> None:
    """Calls the stage with the command line's words; a person's mistake is one line on stderr and exit code 2."""
    words = sys.argv[1:]
    try:
        wanted = list(inspect.signature(stage).parameters)
        if len(words) != len(wanted):
            raise UserError(f"{stage.__name__} takes {' and '.join(wanted) or 'no words'}, not {' '.join(words)!r}")
        stage(*words)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
