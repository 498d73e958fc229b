import pytest

from sae_transfer.core.errors import UserError
from sae_transfer.data.prompt_templates import DEMO_TEMPLATES, TEMPLATES, find, render

FIELDS = "Passage: C.\nQuestion: Q?\nAnswer:"
UNANSWERABLE = 'Answer the question from the passage. If the passage does not tell the answer, say "unanswerable".'
AT_LENGTH = (
    "You are given a passage of text and a question about it. Read the passage from beginning to end, find the part "
    "that the question is about, and answer as briefly as you can, using only what the passage says and nothing that "
    "you know from elsewhere."
)
DEMO = {  # word for word what the demo's language model was trained on
    "default": FIELDS,
    "terse": "C.\nQ?",
    "instruction_first": f"Answer the question using the passage.\n\n{FIELDS}",
    "instruction_last": "C.\nQ?\nAnswer the question from the text above:",
    "may_abstain": f"Answer the question from the passage. If it cannot be answered, say so.\n\n{FIELDS}",
    "polite": "Please read this text carefully: C.\nNow please tell me: Q?\nYour answer:",
}
OTHERS = {  # (the prompt, whether it goes through the chat template)
    "unanswerable_first": (f"{UNANSWERABLE}\n\n{FIELDS}", None),
    "unanswerable_last": (f"Passage: C.\nQuestion: Q?\n\n{UNANSWERABLE}\nAnswer:", None),
    "must_answer": (f"Answer the question from the passage. There is always an answer.\n\n{FIELDS}", None),
    "question_first": ("Question: Q?\nPassage: C.\nAnswer:", None),
    "at_length": (f"{AT_LENGTH}\n\nPassage: C.\n\nQuestion: Q?\n\nAnswer:", None),
    "at_length_unanswerable": (
        f'{AT_LENGTH} If the passage does not contain the answer, do not guess: reply with the word "unanswerable".'
        "\n\nPassage: C.\n\nQuestion: Q?\n\nAnswer:",
        None,
    ),
    "is_it_answerable": (
        "Passage: C.\nQuestion: Q?\nCan this question be answered from the passage? Answer yes or no:",
        None,
    ),
    "default_plain": (FIELDS, False),
    "default_chat": (FIELDS, True),
    "unanswerable_plain": (f"{UNANSWERABLE}\n\n{FIELDS}", False),
    "conversation": (
        "C.\n\nI have a question about this text: Q? If the text does not say, please tell me so.",
        True,
    ),
}
EXPECTED = {name: (text, None) for name, text in DEMO.items()} | OTHERS


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_renders_exactly(template):
    assert (render(template, "C.", "Q?"), find(template).chat) == EXPECTED[template]


def test_no_template_is_untested_and_there_are_ten_variations():
    assert set(TEMPLATES) == set(EXPECTED)
    assert len(TEMPLATES) > 10
    assert len(set(EXPECTED.values())) == len(EXPECTED)


def test_the_demo_was_trained_on_six_of_them():
    assert {name: text.format(context="C.", question="Q?") for name, text in DEMO_TEMPLATES.items()} == DEMO
    assert list(TEMPLATES)[: len(DEMO)] == list(DEMO_TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_finished_prompt_is_verbatim(template):
    text = "A finished prompt, {context} and all \n"
    assert render(template, "", text, finished=True) == text


@pytest.mark.parametrize("template", TEMPLATES)
def test_without_a_context_the_line_with_the_passage_is_left_out_and_the_form_stays(template):
    bare, whole = render(template, "", "Q?"), render(template, "C.", "Q?")
    lines = [line for line in whole.split("\n") if "C." not in line]
    assert [line for line in bare.split("\n") if line] == [line for line in lines if line]
    assert bare.split("Q?")[1] == whole.split("Q?")[1].replace("Passage: C.\n", "")
    assert "{" not in bare


def test_without_a_context_in_words():
    assert render("default", "", "Q?") == "Question: Q?\nAnswer:"
    assert render("terse", "", "{context}") == "{context}"
    assert render("question_first", "", "Q?") == "Question: Q?\nAnswer:"
    assert render("polite", "", "Q?") == "Now please tell me: Q?\nYour answer:"


def test_braces_in_the_texts_stay():
    assert render("terse", "{question}", "{x}") == "{question}\n{x}"


@pytest.mark.parametrize("context", ["", "C."])
def test_an_unknown_template_names_the_closest(context):
    with pytest.raises(UserError, match="prompt template 'polit' is unknown; did you mean polite"):
        render("polit", context, "Q?")
