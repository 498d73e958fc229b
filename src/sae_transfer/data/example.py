"""One labelled question of a dataset."""

from dataclasses import dataclass

ANSWERABLE, UNANSWERABLE = 1, 0


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled question of a dataset.

    `id` is unique within the dataset. Rows that share `group` (a passage, an entity, an equation skeleton) never
    cross a split. `label` is 1 for answerable and 0 for unanswerable. `answer` is None where it is not known.
    `source` names the file that the row came from; a dataset with a file to train and another to test splits by it.
    `finished` says that the question is a whole prompt, which goes through no template.
    """

    id: str
    group: str
    context: str
    question: str
    label: int
    answer: str | None
    source: str
    finished: bool = False
