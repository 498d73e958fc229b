"""Which rows train and which test: balanced, by group, decided by a seeded hash. Pure functions on rows and arrays.

Texts are compared without case, white space and the form of characters (see `overlap`): groups whose names are then the
same are one group, and so are groups that share a context and question.

Datasets differ in what a repeated question means, so each states a rule:
  repeat    the text says little without its context ("What is a + b?"): it may stand on both sides;
  one_side  it may repeat within train or within test, but never crosses from one to the other;
  once      it is asked a single time in the whole dataset (BoolQ_3L asks it of two passages, under both labels).
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import PositiveInt, model_validator

from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import ParamsSection
from sae_transfer.core.randomness import stable_hash
from sae_transfer.data.example import ANSWERABLE, UNANSWERABLE, Example
from sae_transfer.data.overlap import normalised

Questions = Literal["repeat", "one_side", "once"]


WORDS = {ANSWERABLE: "answerable", UNANSWERABLE: "unanswerable"}


class Quota(ParamsSection):
    """How many rows of each label to take. In params an even number n stands for n/2 of each."""

    answerable: PositiveInt
    unanswerable: PositiveInt

    @model_validator(mode="before")
    @classmethod
    def _halves(cls, value: object) -> object:
        if not isinstance(value, int):
            return value
        if isinstance(value, bool) or value <= 0 or value % 2:
            raise ValueError("expected an even number above 0, or {answerable: a, unanswerable: b}")
        return {"answerable": value // 2, "unanswerable": value // 2}

    @property
    def total(self) -> int:
        return self.answerable + self.unanswerable

    def by_label(self) -> dict[int, int]:
        return {ANSWERABLE: self.answerable, UNANSWERABLE: self.unanswerable}


def split(
    rows: Sequence[Example],
    test_rows: Sequence[Example] | None,
    n_train: Quota,
    n_test: Quota,
    seed: int,
    name: str,
    questions: Questions = "repeat",
    max_per_group: int | None = None,
) -> tuple[list[Example], list[Example]]:
    """The training and the test rows of dataset `name`, each in visiting order (see `subset`).

    Groups are visited in the order of a hash of (seed, name, group) until each label's quota is full. Test rows are
    taken first, from `test_rows` if given, else from `rows`; training rows come from `rows` whose group (and question,
    unless the rule is `repeat`) is not in test. Hence n_train never moves a test row. Where train lives on what test
    leaves, test prefers groups that it can take whole, so that few rows are lost to both. Groups that are the same in
    other letters, or share a row, are one group in what is returned: it has the name that sorts first. At most
    `max_per_group` rows of a group are used (see `capped`): rows of one group are worth less than as many of others.

    Raises:
        UserError: a quota cannot be filled (the label, how many rows there are, the largest balanced n that works).
    """
    rows, test_rows = _same_groups(rows, test_rows)
    if questions == "once":
        rows = one_per_question(rows, seed, name)
        test_rows = None if test_rows is None else one_per_question(test_rows, seed, name)
    if max_per_group is not None:
        rows = capped(rows, max_per_group, seed, name)
        test_rows = None if test_rows is None else capped(test_rows, max_per_group, seed, name)
    pool = rows if test_rows is None else test_rows
    _check(pool, n_test, name, "n_test", "the data have")
    test = _take(_visits(pool, seed, name, questions), n_test, whole=test_rows is None)
    left = _untouched(rows, test, questions)
    _check(left, n_train, name, "n_train", f"beside the {len(test)} test rows the data have")
    return _take(_visits(left, seed, name, questions), n_train, whole=False), test


def one_per_question(rows: Sequence[Example], seed: int, name: str) -> list[Example]:
    """One row a question, in the order of `rows`.

    Where a question occurs under both labels, the seeded hash of the question decides which label is kept, in the
    proportion that leaves the labels as balanced as they can be, whatever quotas are asked of them later.
    """
    asked: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        asked[normalised(row.question)].append(row)
    labels = {question: {row.label for row in same} for question, same in asked.items()}
    open_ = sorted(
        (question for question, found in labels.items() if len(found) > 1),
        key=lambda question: (stable_hash(seed, name, question), question),
    )
    settled = Counter(next(iter(found)) for found in labels.values() if len(found) == 1)
    n_unanswerable = (settled[ANSWERABLE] + len(open_) - settled[UNANSWERABLE]) // 2
    n_unanswerable = min(max(n_unanswerable, 0), len(open_))
    for position, question in enumerate(open_):
        labels[question] = {UNANSWERABLE if position < n_unanswerable else ANSWERABLE}
    kept = set()
    for question, same in asked.items():
        eligible = [row.id for row in same if row.label in labels[question]]
        kept.add(min(eligible, key=lambda id_: (stable_hash(seed, name, id_), id_)))
    return [row for row in rows if row.id in kept]


def capped(rows: Sequence[Example], most: int, seed: int, name: str) -> list[Example]:
    """At most `most` rows of each group, in the order of `rows`: of its labels in turn, by a seeded hash of ids."""
    left = Counter[str]()
    kept = set[str]()
    rank = Counter[tuple[str, int]]()
    in_turn = []
    for row in sorted(rows, key=lambda row: (stable_hash(seed, name, row.id), row.id)):
        rank[row.group, row.label] += 1
        in_turn.append((rank[row.group, row.label], row))
    for _, row in sorted(in_turn, key=lambda each: each[0]):  # stable: within a turn the hash decides
        if left[row.group] < most:
            left[row.group] += 1
            kept.add(row.id)
    return [row for row in rows if row.id in kept]


def subset(labels: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """Indices [n] (rising) of the first n/2 rows of each label; a smaller n gives a subset of a larger one's rows.

    Args:
        labels: 0 or 1 [rows], in the order that `split` returned.
        n: how many rows to take, even.

    Raises:
        UserError: n is not even and positive, or a label has fewer than n/2 rows.
    """
    y = np.asarray(labels)
    most = 2 * min(int(np.sum(y == label)) for label in WORDS)
    if n <= 0 or n % 2 or n > most:
        raise UserError(f"a matched n of {n} rows: expected an even number from 2 to {most}, the most that balance")
    return np.sort(np.concatenate([np.flatnonzero(y == label)[: n // 2] for label in WORDS]))


def _check(rows: Sequence[Example], quota: Quota, name: str, key: str, have: str) -> None:
    found = Counter(row.label for row in rows)
    for label, wanted in quota.by_label().items():
        if found[label] < wanted:
            counts = " and ".join(f"{found[each]} {word}" for each, word in WORDS.items())
            most = 2 * min(found[each] for each in WORDS)
            advice = f"the largest balanced {key} is {most}" if most else "add data or lower n_test"
            raise UserError(f"dataset {name}: {key} needs {wanted} {WORDS[label]} rows, {have} {counts}; {advice}")


def _visits(rows: Sequence[Example], seed: int, name: str, questions: Questions) -> list[list[Example]]:
    """The rows in visiting order, in the units that lose rows to both sides when they are torn apart."""
    by_group: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_group[row.group].append(row)
    order = sorted(by_group, key=lambda group: (stable_hash(seed, name, group), group))
    asked = ((row.group, normalised(row.question)) for row in rows) if questions == "one_side" else ()
    root = {group: group for group in order} | _linked(asked)
    units: dict[str, list[Example]] = defaultdict(list)
    for group in order:
        units[root[group]] += by_group[group]
    return list(units.values())


def _same_groups(
    rows: Sequence[Example], test_rows: Sequence[Example] | None
) -> tuple[Sequence[Example], Sequence[Example] | None]:
    """The rows with one name for groups that are the same in other letters, or share a context and question."""
    every = [*rows, *(test_rows or ())]
    names = ((row.group, normalised(row.group)) for row in every)
    contents = ((row.group, (normalised(row.context), normalised(row.question))) for row in every)
    name = _linked([*names, *contents])

    def renamed(part: Sequence[Example]) -> list[Example]:
        return [row if name[row.group] == row.group else replace(row, group=name[row.group]) for row in part]

    return renamed(rows), None if test_rows is None else renamed(test_rows)


def _linked(pairs: Iterable[tuple[str, Hashable]]) -> dict[str, str]:
    """For each group of the (group, key) pairs, the first name of all that common keys link it to, directly or not."""
    parent: dict[str, str] = {}

    def find(group: str) -> str:
        while parent.setdefault(group, group) != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    first: dict[Hashable, str] = {}
    for group, key in pairs:
        one, other = sorted((find(group), find(first.setdefault(key, group))))
        parent[other] = one
    return {group: find(group) for group in list(parent)}


def _take(units: Sequence[Sequence[Example]], quota: Quota, *, whole: bool) -> list[Example]:
    left, taken = quota.by_label(), set[str]()
    for unit in units if whole else ():
        need = Counter(row.label for row in unit)
        if all(need[label] <= left[label] for label in left):
            left = {label: n - need[label] for label, n in left.items()}
            taken.update(row.id for row in unit)
    for row in (row for unit in units for row in unit if row.id not in taken):
        if left[row.label]:
            left[row.label] -= 1
            taken.add(row.id)
    return [row for unit in units for row in unit if row.id in taken]


def _untouched(rows: Sequence[Example], test: Sequence[Example], questions: Questions) -> list[Example]:
    """The rows that share no group with test and, unless questions may repeat, no question."""
    groups = {row.group for row in test}
    asked = set[str]() if questions == "repeat" else {normalised(row.question) for row in test}
    return [row for row in rows if row.group not in groups and normalised(row.question) not in asked]
