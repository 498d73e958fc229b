"""SQuAD 2.0 in its official JSON (Rajpurkar et al. 2018): Wikipedia paragraphs, questions half impossible."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sae_transfer.core.errors import UserError
from sae_transfer.data.example import ANSWERABLE, UNANSWERABLE, Example
from sae_transfer.data.loaders.text_files import open_text, parsed


def load(path: Path) -> list[Example]:
    """The rows of one file: group is the stripped paragraph, label 0 where `is_impossible`, answer the first of them.

    Raises:
        UserError: broken JSON (file and line), or not the SQuAD 2.0 format (what is missing).
        FileNotFoundError: there is no such file.
    """
    with open_text(path) as file:
        content = parsed(file.read(), str(path))
    try:
        return list(_rows(content, path.name))
    except KeyError as error:
        raise UserError(f"{path}: not in the SQuAD 2.0 format, {error} is missing; choose another loader") from None
    except (TypeError, AttributeError):
        raise UserError(
            f"{path}: not in the SQuAD 2.0 format (data, paragraphs, context, qas); choose another loader"
        ) from None


def _rows(content: dict[str, Any], source: str) -> Iterator[Example]:
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"].strip()
            for question in paragraph["qas"]:
                yield _row(question, context, source)


def _row(question: dict[str, Any], context: str, source: str) -> Example:
    if not isinstance(question["is_impossible"], bool):  # the text "false" would count as true
        raise UserError(f"{source}: question {question['id']}: is_impossible is neither true nor false; correct it")
    answers = [] if question["is_impossible"] else question["answers"]
    return Example(
        id=f"{source}:{question['id']}",
        group=context,
        context=context,
        question=question["question"].strip(),
        label=UNANSWERABLE if question["is_impossible"] else ANSWERABLE,
        answer=answers[0]["text"] if answers else None,
        source=source,
    )
