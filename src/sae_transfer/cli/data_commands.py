"""`sae-transfer data`: the datasets under data/."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sae_transfer.cli.params_option import ParamsFile, chosen_params
from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.data import sources

if TYPE_CHECKING:
    from sae_transfer.data.overview import Overview
    from sae_transfer.pipeline.params import Params


def generate() -> None:
    """Write the generated datasets: data/demo (the micro-world) and data/paper (equation, celebrity)."""
    from sae_transfer.demo import generated
    from sae_transfer.pipeline.params import Params

    for path, rows in generated.everything(Params.read().seed):
        files.write_text(path, generated.as_jsonl(rows))
        print(f"{path}: {len(rows)} rows")


def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="squad, idk, boolq; by default all of them.")] = None,
    given: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Take the files from here; download nothing.")
    ] = None,
) -> None:
    """Bring the published datasets' originals into data/external, checksums checked, each with a .dvc file of its own.

    What is there already stays. A README.md beside the files names their origin and licence.
    """
    from sae_transfer.data import fetch
    from sae_transfer.pipeline import versioning

    for name, source in {name: sources.named(name) for name in names or sources.SOURCES}.items():
        brought = fetch.fetch(name, source, sources.EXTERNAL / name, given)
        tracked = versioning.track(sources.EXTERNAL / name)
        lines = tracked.with_name(".gitignore")  # where DVC notes that git shall leave the data alone
        what = f"brought {', '.join(path.name for path in brought)}" if brought else "already there"
        print(f"{sources.EXTERNAL / name}: {what}\n  licence: {source.licence}\n  to commit: {tracked} {lines}")


def check(
    params_file: ParamsFile = "params.yaml",
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Validate every configured dataset: sizes, balance, duplicates, lengths, and prompts beyond the model's context.

    Of the model only the tokenizer and the configuration are read.
    """
    from sae_transfer.model import token_counts
    from sae_transfer.pipeline import checks

    params = chosen_params(params_file)
    count, reason = None, ""
    try:
        count = token_counts.counter(params.model)
    except UserError as error:
        reason = f"tokens are not counted: {error}"
    found = {name: _overview(params, name, count) for name in params.datasets}
    if as_json:
        told = {name: each if isinstance(each, str) else asdict(each) for name, each in found.items()}
        print(json.dumps({"datasets": told, "tokens": reason or "counted"}, indent=1))
    else:
        print("\n\n".join(_described(name, each) for name, each in found.items()))
        if reason:
            print(f"\n{reason}")
        if not any(isinstance(each, str) for each in found.values()):
            print("".join(f"\n{notice.sentence}\n" for notice in checks.notes(params)), end="")
    if wrong := [name for name, each in found.items() if isinstance(each, str)]:
        raise UserError(f"{len(wrong)} of {len(found)} datasets cannot be used: {', '.join(wrong)}; see above")


def _overview(params: "Params", name: str, count: Any) -> "Overview | str":
    """The dataset's overview, or what is wrong with it."""
    from sae_transfer.data import overview

    try:
        return overview.describe_dataset(name, params.datasets[name], params.seed, count)
    except UserError as error:
        return str(error)


def _described(name: str, found: "Overview | str") -> str:
    if isinstance(found, str):
        return f"{name}\n  problem: {found}"
    median, longest = found.characters
    lines = [
        f"{found.rows:,} rows: {found.answerable:,} answerable, {found.unanswerable:,} unanswerable, "
        f"in {found.groups:,} groups",
        f"{found.repeated_questions:,} repeated questions, {found.repeated_rows:,} repeated rows, "
        f"{found.contradictions:,} under both labels",
        f"taken: {found.n_train:,} to train, {found.n_test:,} to test, {found.prompts:,} prompts "
        f"of {median:,.0f} characters (median; longest {longest:,})",
    ]
    if tokens := found.tokens:
        lines.append(
            f"{tokens.median:,.0f} tokens (median; longest {tokens.longest:,}); {tokens.beyond_context:,} prompts "
            f"beyond the context of {tokens.context:,}; {tokens.unknown:,} of {tokens.total:,} tokens unknown"
        )
    return "\n  ".join([name, *lines])
