"""What a configured dataset holds, before anything runs on it: sizes, balance, duplicates, lengths, what fits."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sae_transfer.data import prompt_templates, splits
from sae_transfer.data.example import ANSWERABLE, UNANSWERABLE, Example
from sae_transfer.data.loaders import loader_registry
from sae_transfer.data.loaders.loader_registry import DatasetParams
from sae_transfer.data.overlap import normalised

UNLIMITED = 10**30


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The prompts as the model's tokenizer sees them, without the model: lengths, and what would not fit."""

    median: float
    longest: int
    context: int
    beyond_context: int
    total: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Overview:
    """A dataset's rows as loaded, the rows that the study takes of them, and their prompts.

    `repeated_questions` counts the rows whose question an earlier row asks, `repeated_rows` those that have its context
    too, and `contradictions` the pairs of context and question that stand under both labels. `characters`
    are (median, longest) of the prompts. `tokens` is None where there is no tokenizer.
    """

    rows: int
    answerable: int
    unanswerable: int
    groups: int
    repeated_questions: int
    repeated_rows: int
    contradictions: int
    n_train: int
    n_test: int
    prompts: int
    characters: tuple[float, int]
    tokens: TokenCounts | None


# Prompts, and whether each goes through the chat template (None: as the model's params say) -> their tokens.
CountTokens = Callable[[Sequence[str], Sequence[bool | None]], TokenCounts]


def describe_dataset(name: str, params: DatasetParams, seed: int, count: CountTokens | None = None) -> Overview:
    """The overview of dataset `name`, as the stage `prepare` would take it.

    Args:
        name: the dataset.
        params: its section.
        seed: the study's seed, which decides the split.
        count: counts the tokens of prompts (see `counter`); None where there is no tokenizer.

    Raises:
        UserError: whatever would stop `prepare` or `extract`, except a prompt beyond the model's context.
    """
    pool, test_pool = loader_registry.load(name, params)
    rows = [*pool, *(test_pool or ())]
    train, test = splits.split(pool, test_pool, params.n_train, params.n_test, seed, name, params.question_rule)
    variations = dict.fromkeys([params.template, *params.variations])
    asked = [(variation, row) for variation in variations for row in (*train, *test)]
    texts = [prompt_templates.render(variation, row.context, row.question) for variation, row in asked]
    chat = [prompt_templates.find(variation).chat for variation, _ in asked]
    characters = [len(text) for text in texts]
    labels = Counter(row.label for row in rows)
    return Overview(
        rows=len(rows),
        answerable=labels[ANSWERABLE],
        unanswerable=labels[UNANSWERABLE],
        groups=len({row.group for row in rows}),
        repeated_questions=len(rows) - len({normalised(row.question) for row in rows}),
        repeated_rows=len(rows) - len({_content(row) for row in rows}),
        contradictions=len({(_content(row), row.label) for row in rows}) - len({_content(row) for row in rows}),
        n_train=len(train),
        n_test=len(test),
        prompts=len(texts),
        characters=(float(np.median(characters)), max(characters)),
        tokens=count(texts, chat) if count else None,
    )


def _content(row: Example) -> tuple[str, str]:
    return normalised(row.context), normalised(row.question)
