"""What a configured dataset holds, before anything runs on it: sizes, balance, duplicates, lengths, what fits."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sae_transfer.data import cues, prompt_templates
from sae_transfer.data.example import ANSWERABLE, UNANSWERABLE, Example
from sae_transfer.data.loaders import loader_registry
from sae_transfer.data.loaders.loader_registry import DatasetParams
from sae_transfer.data.overlap import normalised
from sae_transfer.data.splits import WORDS

UNLIMITED = 10**30
SAMPLES, LAST = 2, 3  # prompts of a label that are shown; tokens or words at their end


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
class Sample:
    """A prompt as the model reads it, and what it ends in: its last tokens, or words where there is no tokenizer."""

    label: int
    prompt: str
    last: list[str]


@dataclass(frozen=True, slots=True)
class Overview:
    """A dataset's rows as loaded, the rows that the study takes of them, and their prompts.

    `repeated_questions` counts the rows whose question an earlier row asks, `repeated_rows` those that have its context
    too, and `contradictions` the pairs of context and question that stand under both labels. `characters`
    are (median, longest) of the prompts. `tokens` is None where there is no tokenizer. `samples` are two prompts of
    each label, `ends` the last token of every test row's prompt, or its last word without a tokenizer.
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
    samples: list[Sample]
    ends: list[str]


# Prompts, and whether each goes through the chat template (None: as the model's params say) -> their tokens, and of
# each the last ones up to where it is read.
CountTokens = Callable[[Sequence[str], Sequence[bool | None]], tuple[TokenCounts, list[list[str]]]]


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
    train, test = loader_registry.split(name, params, seed, pool, test_pool)
    variations = dict.fromkeys([params.template, *params.variations])
    asked = [(variation, row) for variation in variations for row in (*test, *train)]
    texts = [
        prompt_templates.render(variation, row.context, row.question, finished=row.finished) for variation, row in asked
    ]
    chat = [prompt_templates.find(variation).chat for variation, _ in asked]
    characters = [len(text) for text in texts]
    tokens, last = count(texts, chat) if count else (None, [text.split()[-LAST:] for text in texts])
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
        tokens=tokens,
        samples=samples(test, texts, last),
        ends=[each[-1] for each in last[: len(test)]] if count else [cues.ending(text) for text in texts[: len(test)]],
    )


def samples(rows: Sequence[Example], prompts: Sequence[str], last: Sequence[list[str]]) -> list[Sample]:
    """The first two rows of each label with their prompts and what these end in; n rows, the first n of the others."""
    return [
        Sample(label, prompts[at], last[at])
        for label in WORDS
        for at in [at for at, row in enumerate(rows) if row.label == label][:SAMPLES]
    ]


def _content(row: Example) -> tuple[str, str]:
    return normalised(row.context), normalised(row.question)
