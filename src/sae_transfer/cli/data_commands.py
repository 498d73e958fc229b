"""`sae-transfer data`: the datasets under data/."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sae_transfer.cli.params_option import ParamsFile, chosen_params
from sae_transfer.core import files
from sae_transfer.core.errors import UserError, closest
from sae_transfer.data import sources
from sae_transfer.data.splits import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sae_transfer.data.overview import Overview, Sample
    from sae_transfer.pipeline.params import Params

SHOWN = 60  # characters of a long prompt that are shown at its beginning and at its end


def generate() -> None:
    """Write the generated datasets.

    data/demo is the micro-world; data/paper has equation and celebrity.
    """
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
    """Bring the published datasets' originals.

    They go into data/external, checksums checked, each with a .dvc file of its own. What is there already stays. A
    README.md beside the files names their origin and licence.
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
    names: Annotated[list[str] | None, typer.Argument(help="Datasets of the params; by default all of them.")] = None,
    params_file: ParamsFile = "params.yaml",
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Look at datasets before a study.

    It counts sizes, balance, duplicates and lengths. It shows prompts as the model reads them, and cues that tell
    labels. Of the model only the tokenizer and the configuration are read.
    """
    from sae_transfer.model import token_counts
    from sae_transfer.pipeline import checks, counted_tokens

    params = chosen_params(params_file)
    for name in names or ():
        if name not in params.datasets:
            raise UserError(f"dataset {name}: not in the params; {closest(name, params.datasets)}")
    count, reason = None, ""
    try:
        count = token_counts.counter(params.model)
    except UserError as error:
        reason = f"tokens are not counted: {error}"
    found = {name: _overview(params, name, count) for name in dict.fromkeys(names or params.datasets)}
    right = {name: each for name, each in found.items() if not isinstance(each, str)}
    if count:
        counted_tokens.write(params, {name: each.tokens for name, each in right.items() if each.tokens})
    if as_json:
        told = {name: each if isinstance(each, str) else _plain(each) for name, each in found.items()}
        print(json.dumps({"datasets": told, "tokens": reason or "counted"}, indent=1))
    else:
        print("\n\n".join(_described(name, each) for name, each in found.items()))
        notes = checks.notes(params, list(right), {name: each.ends for name, each in right.items()})
        print("".join(f"\n{note}\n" for note in [reason, *(notice.sentence for notice in notes)] if note), end="")
    if wrong := [name for name in found if name not in right]:
        raise UserError(f"{len(wrong)} of {len(found)} datasets cannot be used: {', '.join(wrong)}; see above")


def _overview(params: "Params", name: str, count: Any) -> "Overview | str":
    """The dataset's overview, or what is wrong with it."""
    from sae_transfer.data import overview

    try:
        return overview.describe_dataset(name, params.datasets[name], params.seed, count)
    except UserError as error:
        return str(error)


def _plain(found: "Overview") -> dict[str, Any]:
    return {name: value for name, value in asdict(found).items() if name != "ends"}


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
    return "\n  ".join([name, *lines, *samples_shown(found.samples)])


def samples_shown(samples: "Sequence[Sample]") -> list[str]:
    """A line a prompt as the model reads it: its beginning and end, and its last tokens or words, where it is read."""
    return [
        f"{WORDS[each.label]}: {_shortened(each.prompt)}  [ends in {' '.join(map(repr, each.last))}]"
        for each in samples
    ]


def _shortened(prompt: str) -> str:
    return repr(prompt) if len(prompt) <= 2 * SHOWN else f"{prompt[:SHOWN]!r} ... {prompt[-SHOWN:]!r}"
