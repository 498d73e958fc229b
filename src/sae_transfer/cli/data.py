"""`sae-transfer data`: the datasets under data/."""

from pathlib import Path
from typing import Annotated

import typer

from sae_transfer import config, store

EXTERNAL = Path("data/external")


def generate() -> None:
    """Write the generated datasets: data/demo (the micro-world) and data/paper (equation, celebrity)."""
    from sae_transfer.datasets import generated

    for path, rows in generated.everything(int(config.read()["seed"])):
        store.write_text(path, generated.as_jsonl(rows))
        print(f"{path}: {len(rows)} rows")


def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="squad, idk, boolq; by default all of them.")] = None,
    given: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Take the files from here; download nothing.")
    ] = None,
) -> None:
    """Bring the published datasets' originals into data/external, checksums checked, each with a .dvc file of its own.

    What is there already stays; a download that broke off is continued. A README.md beside the files names their
    origin and licence.
    """
    from sae_transfer import fetch, versioning
    from sae_transfer.datasets import sources

    for name, source in {name: sources.named(name) for name in names or sources.SOURCES}.items():
        brought = fetch.fetch(name, source, EXTERNAL / name, given)
        tracked = versioning.track(EXTERNAL / name)
        what = f"brought {', '.join(path.name for path in brought)}" if brought else "already there"
        print(f"{EXTERNAL / name}: {what}; licence: {source.licence}; commit {tracked}")
