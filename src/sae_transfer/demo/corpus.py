"""The text that the demo's language model learns from, generated as it trains and never stored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from sae_transfer.data.prompt_templates import DEMO_TEMPLATES
from sae_transfer.demo.world import DOMAINS, Question, Scene, scenes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<bos>", "<unk>")
QUESTIONS = 6  # asked of one passage in one training sequence


@dataclass(frozen=True)
class Term:
    """A part of the curriculum, up to the step `until`: how often each domain is taught, and how often as recaps."""

    until: int
    shares: dict[str, float]
    recap_share: float


# Looking a value up by its owner's name is learnt in some hundred steps where it is all there is to learn, and late or
# never where easier gains lie beside it. So it comes first, and everything else builds on it.
ALL = {"passages": 2.0, "snippets": 1.0, "yesno": 2.5, "sums": 2.0, "people": 1.5}
CURRICULUM = (
    Term(600, {"passages": 1.0}, 1.0),
    Term(1400, {"passages": 1.0, "sums": 1.0, "yesno": 1.0}, 1.0),
    Term(3000, ALL, 0.5),
    Term(5000, ALL, 0.1),
)


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """A word-level tokenizer for every word of the world and of the prompt templates; lower case, BOS first."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    texts = [*DEMO_TEMPLATES.values(), *(text for domain in DOMAINS for text in _samples(domain))]
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text.lower())} - {"{", "}"})
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>", padding_side="right"
    )


def _samples(domain: str) -> Iterator[str]:
    """Enough of a domain's text to meet each of its words."""
    source = scenes(domain, Random(domain), held_out=False)
    for _ in range(3000):
        scene = next(source)
        yield scene.context
        for question in scene.questions:
            yield f"{question.text} {question.answer} {question.recap} {question.completion}"


@dataclass(frozen=True)
class Lesson:
    """What the model learns from one scene: the context, and (the rest of a prompt, the word that answers it) pairs."""

    context: str
    questions: tuple[tuple[str, str], ...]


def lesson(scene: Scene, rng: Random, recap_share: float) -> Lesson:
    """Several of the scene's questions under one of the templates, half of them answerable; or its recaps.

    A recap puts the look-up into three words instead of twelve. Without recaps, the model never learns most domains.
    """
    if rng.random() < recap_share:
        asked = rng.sample(scene.questions, min(QUESTIONS + 2, len(scene.questions)))
        return Lesson(scene.context, tuple((each.recap, each.completion) for each in asked))
    head, tail = DEMO_TEMPLATES[rng.choice(sorted(DEMO_TEMPLATES))].split("{context}")
    asked = balanced(scene.questions, QUESTIONS, rng)
    return Lesson(head + scene.context, tuple((tail.format(question=each.text), each.answer) for each in asked))


def balanced(questions: Sequence[Question], n: int, rng: Random) -> list[Question]:
    """Up to n of the questions in random order, as many answerable as unanswerable ones."""
    parts = [[question for question in questions if question.label == label] for label in (0, 1)]
    half = min(n // 2, *(len(part) for part in parts))
    chosen = [question for part in parts for question in rng.sample(part, half)]
    return rng.sample(chosen, len(chosen))
