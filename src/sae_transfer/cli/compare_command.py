"""`sae-transfer compare`: the difference of two studies."""

from pathlib import Path
from typing import Annotated

import typer

from sae_transfer.core import files

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say only where the files are.")]
Name = Annotated[str, typer.Argument(help="A git revision, a DVC experiment, or a folder with results ('.' is here).")]


def compare(
    x: Name,
    y: Name,
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for the table and the figure.")] = Path(
        "comparison"
    ),
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the table as JSON lines instead of sentences.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare two studies cell by cell.

    It shows AUC in Y minus AUC in X, paired where both tested the same rows. Changing params.yaml overwrites results/;
    this sets a study against what another revision or experiment found:

    \b
      sae-transfer compare HEAD~1 HEAD
      sae-transfer compare main my-experiment -o comparison

    It writes comparison.csv (a row a cell) and comparison.png and .svg. Intervals are not corrected for their number.
    """  # noqa: D301, click keeps lines after \b as they are
    from sae_transfer.pipeline import versioning
    from sae_transfer.report.figures import drawings, two_studies
    from sae_transfer.results import comparison

    with versioning.opened(x) as first, versioning.opened(y) as second:
        table = comparison.compare(first, second, seed)
    files.write_text(out / "comparison.csv", table.to_csv(index=False, float_format="%.6g"))
    drawings.save(two_studies.two_studies(table, first.name, second.name), out, "comparison")
    if json:
        print(table.to_json(orient="records", lines=True), end="")
        return
    if not quiet:
        print(*comparison.summarise_comparison(table, first.name, second.name), sep="\n")
    print(f"{out / 'comparison.csv'} holds every cell, {out / 'comparison.png'} shows them.")
