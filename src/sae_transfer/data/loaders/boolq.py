"""BoolQ_3L (Sulem et al. 2022): yes/no questions on a passage, as JSON lines; "no-answer" is the unanswerable class.

Every "no-answer" question stands in the file a second time, with its own passage, as an answerable one. All rows are
loaded here; `splits.one_per_question` keeps one a question.
"""

from pathlib import Path
from typing import Any

from sae_transfer.core.errors import UserError
from sae_transfer.core.randomness import stable_hash
from sae_transfer.data.example import ANSWERABLE, UNANSWERABLE, Example
from sae_transfer.data.loaders.text_files import check_readable, json_lines

ANSWERS = {"true": "yes", "false": "no"}


def load(path: Path) -> list[Example]:
    """The rows of one file: group is the stripped passage, the id a hash of passage and question.

    A passage that was drawn for a "no-answer" question is now and then the very one that answers it (45 times in the
    dev file): the row that people labelled stays, its contradiction goes.

    Raises:
        UserError: broken JSON, a missing key or an answer that is none of the three (file and line).
        FileNotFoundError: there is no such file.
    """
    rows: dict[str, Example] = {}
    for line, record in json_lines(path):
        row = _row(record, f"{path} line {line}", path.name)
        if row.label == ANSWERABLE or row.id not in rows:
            rows[row.id] = row
    return list(rows.values())


def _row(record: dict[str, Any], where: str, source: str) -> Example:
    lacking = {"passage", "question", "answer"} - record.keys()
    if lacking:
        raise UserError(f"{where}: no '{min(lacking)}'; BoolQ_3L has passage, question and answer on every line")
    answer = str(record["answer"]).lower()
    if answer not in {*ANSWERS, "no-answer"}:
        raise UserError(f'{where}: answer {record["answer"]!r} is none of true, false, "no-answer"')
    for name in ("passage", "question"):
        if not isinstance(record[name], str):
            raise UserError(f"{where}: '{name}' is no text; write it as one")
        check_readable(record[name], f"{where}: its {name}")
    passage, question = record["passage"].strip(), record["question"].strip()
    return Example(
        id=f"{source}:{stable_hash(passage, question):016x}",
        group=passage,
        context=passage,
        question=question,
        label=ANSWERABLE if answer in ANSWERS else UNANSWERABLE,
        answer=ANSWERS.get(answer),
        source=source,
    )
