"""Prompt templates. They are ours: the paper's own prompts are not public."""

from sae_transfer.records import UserError, closest

# The demo's language model was trained on exactly these strings: changing one moves its prompts off their distribution.
TEMPLATES: dict[str, str] = {
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


def render(template: str, context: str, question: str) -> str:
    """The prompt of one row.

    With an empty context the question is the whole prompt and is returned verbatim under every template: that is
    how a table with finished prompts enters, and such a table has no prompt variations.

    Raises:
        UserError: the template is unknown (with the closest names).
    """
    if template not in TEMPLATES:
        raise UserError(f"prompt template '{template}' is unknown; {closest(template, TEMPLATES)}")
    return TEMPLATES[template].format(context=context, question=question) if context else question
