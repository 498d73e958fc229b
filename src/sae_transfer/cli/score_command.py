"""`sae-transfer score`: a saved probe on new prompts."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae_transfer.core.errors import UserError

if TYPE_CHECKING:
    from sae_transfer.pipeline.detector import Verdict

SHOWN = 5  # features a line


def score(
    file: Annotated[
        Path | None,
        typer.Argument(help="Prompts: .txt (one a line), .jsonl or .csv; without it and --text, lines from stdin."),
    ] = None,
    train: Annotated[str, typer.Option(help="The dataset that the probe was trained on.")] = "",
    probe: Annotated[str, typer.Option(help="sparse_1, sparse_n, residual or mean_difference.")] = "sparse_n",
    space: Annotated[
        str, typer.Option(help="layer_<L> or an SAE; by default the study's first SAE, or the probe's layer.")
    ] = "",
    text: Annotated[list[str] | None, typer.Option(help="A finished prompt; may be given several times.")] = None,
    template: Annotated[
        str, typer.Option(help="For rows with context and question; by default the training set's.")
    ] = "",
    rank: Annotated[int | None, typer.Option(help="Of a 1-sparse probe's feature; by default the best.")] = None,
    n_features: Annotated[
        int | None, typer.Option("-n", "--n-features", help="Of an N-sparse probe; by default the N that was chosen.")
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a prompt, features included.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress bar.")] = False,
) -> None:
    """Apply a saved probe to new prompts.

    It says the probability, the decision, and the features that fired.

    \b
      sae-transfer score --train squad --text "Passage: ... Question: ... Answer:"
      sae-transfer score --train squad --probe residual questions.jsonl --json

    A .jsonl or .csv file has `prompt` (finished), or `question` and `context`, which are put into the training set's
    template. p is the probability of "answerable"; the decision is at 0.5, the threshold that the training data set.
    """  # noqa: D301, click keeps lines after \b as they are
    from sae_transfer.data.prompt_templates import find
    from sae_transfer.pipeline.detector import Detector
    from sae_transfer.pipeline.study import Study

    study = Study.open()
    if not train:
        raise UserError(f"--train is missing; name one of {', '.join(study.datasets)}")
    used = template or study.params.datasets[study.check_dataset(train)].template
    prompts = [*(text or []), *_prompts(file, used, wanted=not text)]
    if not prompts:
        raise UserError("no prompts; give --text, a file, or lines on stdin")
    of_template = find(used).chat
    chat = study.params.model.chat_template if of_template is None else of_template
    detector = Detector(study, train, probe, space or None, rank=rank, n=n_features, chat=chat)
    verdicts = detector(prompts, progress=not quiet and sys.stderr.isatty())
    print(*(_as_json(verdicts) if json_lines else _as_lines(verdicts)), sep="\n")


def _prompts(file: Path | None, template: str, *, wanted: bool) -> Iterator[str]:
    from sae_transfer.data.loaders import text_files

    if file is None:
        yield from (line.rstrip("\n") for line in sys.stdin if line.strip()) if wanted else ()
        return
    if not file.is_file():
        raise UserError(f"{file}: not found; give a .txt, .jsonl or .csv file with prompts")
    if file.suffix == ".txt":
        with text_files.open_text(file) as text:
            yield from (line.rstrip("\r\n") for line in text if line.strip())
        return
    yield from _rendered(file, template)


def _rendered(file: Path, template: str) -> Iterator[str]:
    from sae_transfer.data import prompt_templates
    from sae_transfer.data.loaders import table

    for line, record in table.records(file):
        if "prompt" in record:
            yield str(record["prompt"])
        elif "question" in record:
            yield prompt_templates.render(template, str(record.get("context", "")), str(record["question"]))
        else:
            raise UserError(f"{file} line {line}: neither `prompt` nor `question`; name the column so")


def _as_json(verdicts: "Sequence[Verdict]") -> Iterator[str]:
    return (json.dumps(dataclasses.asdict(verdict)) for verdict in verdicts)


def _as_lines(verdicts: "Sequence[Verdict]") -> Iterator[str]:
    yield "    p  decision      prompt and features (contribution to the score)"
    for verdict in verdicts:
        decision = "answerable" if verdict.answerable else "unanswerable"
        words = " ".join(verdict.prompt.split())
        yield f"{verdict.probability:5.3f}  {decision:<12}  {words if len(words) <= 90 else '... ' + words[-86:]}"
        if verdict.fired:
            shown = ", ".join(f"{one.feature} ({one.contribution:+.2f})" for one in verdict.fired[:SHOWN])
            more = len(verdict.fired) - SHOWN
            yield " " * 21 + shown + (f" and {more} more" if more > 0 else "")
