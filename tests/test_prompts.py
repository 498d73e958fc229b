import pytest

from sae_transfer.prompts import TEMPLATES, render
from sae_transfer.records import UserError

EXPECTED = {  # word for word what the demo's language model was trained on
    "default": "Passage: C.\nQuestion: Q?\nAnswer:",
    "terse": "C.\nQ?",
    "instruction_first": "Answer the question using the passage.\n\nPassage: C.\nQuestion: Q?\nAnswer:",
    "instruction_last": "C.\nQ?\nAnswer the question from the text above:",
    "may_abstain": (
        "Answer the question from the passage. If it cannot be answered, say so.\n\nPassage: C.\nQuestion: Q?\nAnswer:"
    ),
    "polite": "Please read this text carefully: C.\nNow please tell me: Q?\nYour answer:",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_renders_exactly(template):
    assert render(template, "C.", "Q?") == EXPECTED[template]


def test_no_template_is_untested():
    assert set(TEMPLATES) == set(EXPECTED)


@pytest.mark.parametrize("template", TEMPLATES)
def test_without_context_the_question_is_the_prompt(template):
    assert render(template, "", "A finished prompt, {context} and all \n") == "A finished prompt, {context} and all \n"


def test_braces_in_the_texts_stay():
    assert render("terse", "{question}", "{x}") == "{question}\n{x}"


@pytest.mark.parametrize("context", ["", "C."])
def test_an_unknown_template_names_the_closest(context):
    with pytest.raises(UserError, match="prompt template 'polit' is unknown; did you mean polite"):
        render("polit", context, "Q?")
