"""The words that every module shares: a dataset row, a person's mistake, and reproducible randomness."""

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

ANSWERABLE, UNANSWERABLE = 1, 0


class UserError(Exception):
    """A person's mistake: one line that names the thing, the value and the remedy. Commands exit with code 2."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled question of a dataset.

    `id` is unique within the dataset. Rows that share `group` (a passage, an entity, an equation skeleton) never
    cross a split. `label` is 1 for answerable and 0 for unanswerable. `answer` is None where it is not known.
    `source` names the file that the row came from; a dataset with a file to train and another to test splits by it.
    """

    id: str
    group: str
    context: str
    question: str
    label: int
    answer: str | None
    source: str


def closest(name: str, known: Iterable[str]) -> str:
    """The part of a message that helps someone who mistyped: the closest known names, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"


def stable_hash(*parts: object) -> int:
    """A 64-bit hash of the parts' text that is the same on every machine and in every run."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def generator(seed: int, *names: object) -> np.random.Generator:
    """A random generator of its own for the thing that `names` names, derived from the study's seed."""
    return np.random.default_rng(stable_hash(seed, *names))
