"""IDK, the ACE-whQA files (Sulem et al. 2021): wh-questions on short contexts, in the SQuAD 2.0 format with quirks.

The files restart their ids and share contexts with one another, under both labels: ids carry the file's name and the
group is the context, whichever file it stands in. The paper's 484 rows are `has-answer` and `IDK-non-competitive`.
"""

from dataclasses import replace
from pathlib import Path

from sae_transfer.data.example import Example
from sae_transfer.data.loaders import squad

HEADER = ("Text", "Question")  # one file kept the header of the table that it was made from


def load(path: Path) -> list[Example]:
    """The rows of one file, without its header row and with single spaces.

    Raises:
        UserError: broken JSON (file and line), or not the SQuAD 2.0 format.
        FileNotFoundError: there is no such file.
    """
    return [_clean(row) for row in squad.load(path) if (row.context, row.question) != HEADER]


def _clean(row: Example) -> Example:
    context = " ".join(row.context.split())
    return replace(row, group=context, context=context, question=" ".join(row.question.split()))
