"""Rows that two datasets share: the same text in whatever case and spacing."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Content = tuple[str, str]
"""What a row asks: its context and question, normalised."""

TELLING = 4  # words by which a question is known without its passage; "Who?" is not


@lru_cache(maxsize=2**16)  # a passage stands in many rows
def normalised(text: str) -> str:
    """The text by which two texts are the same: case, white space and the form of characters do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def overlapping(rows: pd.DataFrame, seen: pd.DataFrame) -> NDArray[np.bool_]:
    """[n], which of the rows stand among those that were seen: with the same context and question.

    Where one of the two has no context, a question of some words decides alone: it may be the other's without its
    passage (SelfAware asks SQuAD's questions so).

    Args:
        rows: columns `context` and `question` [n].
        seen: the same columns.
    """
    return shared(contents(rows), contents(seen))


def shared(rows: Sequence[Content], seen: Iterable[Content]) -> NDArray[np.bool_]:
    """`overlapping` of what `contents` made."""
    known = set(seen)
    telling = {(context, question) for context, question in known if len(question.split()) >= TELLING}
    alone, every = {question for context, question in telling if not context}, {question for _, question in telling}
    return np.array(
        [(context, question) in known or question in (alone if context else every) for context, question in rows],
        dtype=bool,
    )


def contents(rows: pd.DataFrame) -> list[Content]:
    """What each row asks, normalised: rows with equal contents are the same, under whatever template."""
    pairs = zip(rows["context"], rows["question"], strict=True)
    return [(normalised(context), normalised(question)) for context, question in pairs]
