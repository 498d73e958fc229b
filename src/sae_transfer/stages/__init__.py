"""What dvc.yaml runs: one thin file a stage, each reads, makes one pure call, and writes."""

import sys
from collections.abc import Callable

from sae_transfer.records import UserError


def run(stage: Callable[..., None]) -> None:
    """Calls the stage with the command line's words; a person's mistake is one line on stderr and exit code 2."""
    try:
        stage(*sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
