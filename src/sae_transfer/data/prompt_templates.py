"""Prompt templates. They are ours: the paper's own prompts are not public.

A template is a pure function of context and question. `chat` says whether the prompt goes through the model's chat
template; None leaves it to `model.chat_template`. The variations differ in one thing at a time, where they can:
instruction first or last, with or without the right to say "unanswerable", few words or many, chat or plain.
"""

import re
from dataclasses import dataclass

from sae_transfer.core.errors import UserError, closest


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with the places `{context}` and `{question}`."""

    text: str
    chat: bool | None = None


PASSAGE = re.compile(r".*\{context\}.*\n+")  # a template's line with the passage

# The demo's language model was trained on exactly these strings: changing one moves its prompts off their distribution.
DEMO_TEMPLATES: dict[str, str] = {
    "default": "Passage: {context}\nQuestion: {question}\nAnswer:",
    "terse": "{context}\n{question}",
    "instruction_first": (
        "Answer the question using the passage.\n\nPassage: {context}\nQuestion: {question}\nAnswer:"
    ),
    "instruction_last": "{context}\n{question}\nAnswer the question from the text above:",
    "may_abstain": (
        "Answer the question from the passage. If it cannot be answered, say so.\n\n"
        "Passage: {context}\nQuestion: {question}\nAnswer:"
    ),
    "polite": "Please read this text carefully: {context}\nNow please tell me: {question}\nYour answer:",
}

MAY_SAY_UNANSWERABLE = (
    'Answer the question from the passage. If the passage does not tell the answer, say "unanswerable".'
)
AT_LENGTH = (
    "You are given a passage of text and a question about it. Read the passage from beginning to end, find the part "
    "that the question is about, and answer as briefly as you can, using only what the passage says and nothing that "
    "you know from elsewhere."
)

TEMPLATES: dict[str, Template] = {name: Template(text) for name, text in DEMO_TEMPLATES.items()} | {
    "unanswerable_first": Template(f"{MAY_SAY_UNANSWERABLE}\n\nPassage: {{context}}\nQuestion: {{question}}\nAnswer:"),
    "unanswerable_last": Template(f"Passage: {{context}}\nQuestion: {{question}}\n\n{MAY_SAY_UNANSWERABLE}\nAnswer:"),
    "must_answer": Template(
        "Answer the question from the passage. There is always an answer.\n\n"
        "Passage: {context}\nQuestion: {question}\nAnswer:"
    ),
    "question_first": Template("Question: {question}\nPassage: {context}\nAnswer:"),
    "at_length": Template(f"{AT_LENGTH}\n\nPassage: {{context}}\n\nQuestion: {{question}}\n\nAnswer:"),
    "at_length_unanswerable": Template(
        f'{AT_LENGTH} If the passage does not contain the answer, do not guess: reply with the word "unanswerable".'
        "\n\nPassage: {context}\n\nQuestion: {question}\n\nAnswer:"
    ),
    "is_it_answerable": Template(
        "Passage: {context}\nQuestion: {question}\nCan this question be answered from the passage? Answer yes or no:"
    ),
    "default_plain": Template(DEMO_TEMPLATES["default"], chat=False),
    "default_chat": Template(DEMO_TEMPLATES["default"], chat=True),
    "unanswerable_plain": Template(
        f"{MAY_SAY_UNANSWERABLE}\n\nPassage: {{context}}\nQuestion: {{question}}\nAnswer:", chat=False
    ),
    "conversation": Template(
        "{context}\n\nI have a question about this text: {question} If the text does not say, please tell me so.",
        chat=True,
    ),
}


def render(template: str, context: str, question: str, *, finished: bool = False) -> str:
    """The prompt of one row.

    Without a context the template's line with the passage is left out, and the rest stays: so every prompt of a study
    begins and ends alike, and neither a dataset nor a label is known by the form. A `finished` prompt is the question,
    verbatim under every template: such a table has no prompt variations.

    Raises:
        UserError: the template is unknown (with the closest names).
    """
    text = find(template).text
    if finished:
        return question
    return (text if context else PASSAGE.sub("", text)).format(context=context, question=question)


def find(template: str) -> Template:
    """The template of this name.

    Raises:
        UserError: there is none (with the closest names).
    """
    if template not in TEMPLATES:
        raise UserError(f"prompt template '{template}' is unknown; {closest(template, TEMPLATES)}")
    return TEMPLATES[template]
