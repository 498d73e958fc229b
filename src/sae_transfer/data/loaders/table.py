"""Any CSV or JSONL with a prompt, or a context and a question, and a binary label; also as .gz or .zst."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import model_validator

from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.params_section import ParamsSection
from sae_transfer.data.example import ANSWERABLE, UNANSWERABLE, Example
from sae_transfer.data.loaders.text_files import Record, json_lines, open_text

LONGEST_FIELD = 2**31 - 1  # characters of a CSV field; Python's own limit of 131,072 is less than a long context
# 1.0 and 0.0: what tables write where another label was missing.
LABELS = {"1": ANSWERABLE, "1.0": ANSWERABLE, "0": UNANSWERABLE, "0.0": UNANSWERABLE}


class Columns(ParamsSection):
    """Which column is what. The file has `prompt` (a finished prompt, verbatim), or `question` with or without a
    `context` (which go through the dataset's template).

    `id` falls back to the line number, `group` to the context or, without one, to the question. A label is 0 or 1
    (or 0.0 or 1.0), or the texts `positive` (answerable, 1) and `negative`. A column that is named here must be in the
    file.
    """

    prompt: str = "prompt"
    context: str = "context"
    question: str = "question"
    label: str = "label"
    id: str = "id"
    group: str = "group"
    answer: str = "answer"
    positive: str | None = None
    negative: str | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> "Columns":
        if (self.positive is None) != (self.negative is None) or (self.positive and self.positive == self.negative):
            raise ValueError("give both `positive` and `negative`, two different texts, or neither")
        return self


def load(path: Path, columns: Columns) -> list[Example]:
    """The rows of one file.

    Raises:
        UserError: an unknown file type, broken JSON or CSV (file and line), a missing column (with the closest
            names), or a label that is neither 0 nor 1 (file, line and id).
        FileNotFoundError: there is no such file.
    """
    return [_row(record, columns, path, line) for line, record in records(path)]


def _csv_records(path: Path) -> Iterator[tuple[int, Record]]:
    csv.field_size_limit(LONGEST_FIELD)  # for all of the process: it raises what Python allows
    with open_text(path) as file:
        reader = csv.DictReader(file, strict=True)
        try:
            names = list(reader.fieldnames or ())
            if twice := [name for name in names if names.count(name) > 1]:
                raise UserError(f"{path} line 1: the column {twice[0]!r} is there twice; rename or delete one")
            for record in reader:
                if None in record or None in record.values():
                    raise UserError(f"{path} line {reader.line_num}: not {len(names)} fields; correct the line")
                yield reader.line_num, record
        except csv.Error as error:
            raise UserError(f"{path} line {reader.reader.line_num}: broken CSV ({error}); correct the line") from None


def records(path: Path) -> Iterator[tuple[int, Record]]:
    kind = path.with_suffix("").suffix if path.suffix in {".gz", ".zst"} else path.suffix
    if kind == ".csv":
        return _csv_records(path)
    if kind == ".jsonl":
        return json_lines(path)
    raise UserError(f"{path}: a table's name ends in .csv or .jsonl, or in one of these with .gz or .zst added")


def _row(record: Record, columns: Columns, path: Path, line: int) -> Example:
    where = f"{path} line {line}"
    for field in columns.model_fields_set - {"positive", "negative"}:
        _require(record, getattr(columns, field), where)
    if columns.prompt != columns.question and {columns.prompt, columns.question} <= record.keys():
        raise UserError(f"{where}: has both '{columns.prompt}' and '{columns.question}'; keep or rename one of them")
    finished = columns.prompt in record
    for field in (columns.prompt if finished else columns.question, columns.label):
        _require(record, field, where)
    question = _prose(record, columns.prompt if finished else columns.question, where)
    context = "" if finished else _prose(record, columns.context, where).strip()
    id_ = _text(record, columns.id) or str(line)
    return Example(
        id=f"{path.name}:{id_}",
        group=_text(record, columns.group) or context or question.strip(),
        context=context,
        question=question,
        label=_label(record, columns, f"{where} (id {id_})"),
        answer=_text(record, columns.answer) or None,
        source=path.name,
        finished=finished,
    )


def _require(record: Record, column: str, where: str) -> None:
    if column not in record:
        raise UserError(f"{where}: no column '{column}'; {closest(column, record)}")


def _text(record: Record, column: str) -> str:
    """The value as text; what is no string in JSON (an id 7, a label true) as JSON writes it; nothing as ''."""
    value = record.get(column)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _prose(record: Record, column: str, where: str) -> str:
    """The value of a column that holds text; a number is one too, a list is none."""
    if isinstance(record.get(column), bool | list | dict):
        raise UserError(f"{where}: '{column}' is no text; write it as one")
    return _text(record, column)


def _label(record: Record, columns: Columns, where: str) -> int:
    text = _text(record, columns.label).strip()
    if columns.positive is None:
        labels, told, hint = LABELS, ["0", "1"], "; name its texts in columns.positive and columns.negative"
    else:
        labels, hint = {columns.positive: ANSWERABLE, str(columns.negative): UNANSWERABLE}, "; correct it"
        told = sorted(labels)
    if text not in labels:
        raise UserError(f"{where}: label {text[:80]!r} is neither {' nor '.join(told)}{hint}")
    return labels[text]
