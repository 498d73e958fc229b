"""Any CSV or JSONL with a prompt, or a context and a question, and a binary label; also as .gz or .zst."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pydantic import model_validator

from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.params_section import ParamsSection
from sae_transfer.data.example import ANSWERABLE, UNANSWERABLE, Example

Record = dict[str, Any]


class Columns(ParamsSection):
    """Which column is what. The file has `prompt` (a finished prompt), or `question` with or without `context`.

    `id` falls back to the line number, `group` to the context or, without one, to the question. A label is 0 or 1,
    or the texts `positive` (answerable, 1) and `negative`. A column that is named here must be in the file.
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


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text file, decompressed on the way where its name ends in .gz or .zst.

    Raises:
        UserError: it is damaged, or not UTF-8.
        FileNotFoundError: there is no such file.
    """
    import zstandard  # here, for start-up time

    try:
        with path.open("rb") as raw:
            binary: Any = raw
            if path.suffix == ".gz":
                binary = gzip.GzipFile(fileobj=raw)
            elif path.suffix == ".zst":
                binary = io.BytesIO(_unpacked(raw.read()))
            # utf-8-sig: spreadsheets put a byte order mark before the first column's name
            yield io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise UserError(f"{path}: damaged archive ({error}); fetch or pack it again") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def _unpacked(data: bytes) -> bytes:
    """All zstd frames of `data`; the library's own reader takes a file that was cut off for a shorter one."""
    import zstandard

    parts = []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        parts.append(frame.decompress(data))
        if not frame.eof:
            raise EOFError("it ends too early")
        data = frame.unused_data
    return b"".join(parts)


def json_lines(path: Path) -> Iterator[tuple[int, Record]]:
    """The objects of a JSON Lines file with their line numbers, blank lines left out.

    Raises:
        UserError: a line is no JSON object (file and line).
        FileNotFoundError: there is no such file.
    """
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _json_object(line, f"{path} line {number}")


def _json_object(line: str, where: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: broken JSON ({error.msg} at column {error.colno}); correct the line") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(record).__name__}; one object a line")
    return record


def _csv_records(path: Path) -> Iterator[tuple[int, Record]]:
    with open_text(path) as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for record in reader:
                if None in record or None in record.values():
                    raise UserError(f"{path} line {reader.line_num}: not {len(reader.fieldnames or ())} fields")
                yield reader.line_num, record
        except csv.Error as error:
            raise UserError(f"{path} line {reader.reader.line_num}: broken CSV ({error})") from None


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
    if columns.prompt in record and columns.question in record:
        raise UserError(f"{where}: has both '{columns.prompt}' and '{columns.question}'; keep or rename one of them")
    finished = columns.prompt in record
    for field in (columns.prompt if finished else columns.question, columns.label):
        _require(record, field, where)
    question = _text(record, columns.prompt if finished else columns.question)
    context = "" if finished else _text(record, columns.context).strip()
    id_ = _text(record, columns.id) or str(line)
    return Example(
        id=f"{path.name}:{id_}",
        group=_text(record, columns.group) or context or question.strip(),
        context=context,
        question=question,
        label=_label(record, columns, f"{where} (id {id_})"),
        answer=_text(record, columns.answer) or None,
        source=path.name,
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


def _label(record: Record, columns: Columns, where: str) -> int:
    text = _text(record, columns.label).strip()
    if columns.positive is None:
        labels, hint = {"1": ANSWERABLE, "0": UNANSWERABLE}, "; name its texts in columns.positive and columns.negative"
    else:
        labels, hint = {columns.positive: ANSWERABLE, str(columns.negative): UNANSWERABLE}, ""
    if text not in labels:
        raise UserError(f"{where}: label {text!r} is neither {' nor '.join(sorted(labels))}{hint}")
    return labels[text]
