"""Rows that two datasets share: the same text in whatever case and spacing."""

import unicodedata

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def normalised(text: str) -> str:
    """The text by which two texts are the same: case, white space and the form of characters do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def overlapping(rows: pd.DataFrame, seen: pd.DataFrame) -> NDArray[np.bool_]:
    """[n], which of the rows stand among those that were seen: with the same context and question.

    Args:
        rows: columns `context` and `question` [n].
        seen: the same columns.
    """
    known = set(contents(seen))
    return np.array([content in known for content in contents(rows)], dtype=bool)


def contents(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """What each row asks, normalised: rows with equal contents are the same, under whatever template."""
    pairs = zip(rows["context"], rows["question"], strict=True)
    return [(normalised(context), normalised(question)) for context, question in pairs]
