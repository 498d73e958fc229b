"""`python -m sae_transfer.pipeline VERB` runs one stage; a person's mistake is one line on stderr and exit code 2."""

import sys
from importlib import import_module

from sae_transfer.core.errors import UserError, closest

VERBS = "inputs prepare extract judge encode fit transfer resample analyse report track".split()


def main() -> None:
    """Runs the stage that the command line names, in the folder where it was started."""
    try:
        verb = " ".join(sys.argv[1:])
        if verb not in VERBS:
            raise UserError(f"stage '{verb}' is unknown; {closest(verb, VERBS)}")
        from sae_transfer.pipeline.study import Study

        import_module(f"sae_transfer.pipeline.{verb}").run(Study.open())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, and the next run goes on from there", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
