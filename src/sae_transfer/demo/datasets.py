"""The demo's five datasets: questions about scenes that the language model never saw."""

from collections.abc import Sequence
from random import Random

from sae_transfer.core.randomness import stable_hash
from sae_transfer.data.example import ANSWERABLE, UNANSWERABLE, Example
from sae_transfer.demo.world import Question, scenes


def generate(domain: str, n: int, seed: int) -> list[Example]:
    """Balanced rows of one domain: one answerable and one unanswerable question about each of n/2 contexts.

    The kind of question (which attribute, which role) is drawn evenly for either label, so that it says little.
    """
    rng = Random(stable_hash(seed, "demo dataset", domain))
    rows: list[Example] = []
    seen = set[str]()
    for scene in scenes(domain, rng, held_out=True):
        pair = [_pick(scene.questions, label, rng) for label in (ANSWERABLE, UNANSWERABLE)]
        if scene.context in seen or None in pair:
            continue
        seen.add(scene.context)
        for question in pair:
            assert question is not None
            answer = question.answer if question.label == ANSWERABLE else None
            id_ = f"{len(rows)}"
            rows.append(Example(id_, scene.group, scene.context, question.text, question.label, answer, domain))
        if len(rows) >= n:
            return rows
    raise AssertionError("scenes never end")


def _pick(questions: Sequence[Question], label: int, rng: Random) -> Question | None:
    kinds = sorted({question.kind for question in questions if question.label == label})
    if not kinds:
        return None
    kind = rng.choice(kinds)
    return rng.choice([question for question in questions if question.label == label and question.kind == kind])
