"""Chat templates: the same every day, with their own arguments, and in one line where they fail."""

import pytest
import yaml

import tiny
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import parse
from sae_transfer.model.chat_templates import rendered
from sae_transfer.model.model_params import ModelParams
from sae_transfer.pipeline import extract

OFF = "enable_thinking is defined and not enable_thinking"
THINKING = f"{{{{ messages[0]['content'] }}}} now{{% if {OFF} %}} <think></think>{{% endif %}}"
PARAMS = {"name": "m", "layers": [0]}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.llama()


def text(tokenizer, template, **arguments):
    tokenizer.chat_template = template
    return rendered(tokenizer, ["when"], arguments)[0][0]


@pytest.mark.parametrize(
    ("template", "day"),
    [
        ("{{ strftime_now('%Y-%m-%d') }}", "2024-07-26"),
        ("{{ strftime_now('%d %b %Y %H:%M') }}", "26 Jul 2024 00:00"),
        ("{% set day = strftime_now('%A') %}{{ day }}", "Friday"),
        ("{{ date_string }}", "26 Jul 2024"),
    ],
)
def test_a_template_names_the_same_day_every_day(tokenizer, template, day):
    assert text(tokenizer, f"{template} {{{{ messages[0]['content'] }}}} w") == f"{day} when w"


def test_the_clock_of_others_runs_on(tokenizer):
    from transformers.utils import chat_template_utils

    clock = chat_template_utils.datetime
    text(tokenizer, "{{ messages[0]['content'] }}")
    with pytest.raises(UserError):
        text(tokenizer, "{{ raise_exception('no') }}")
    assert chat_template_utils.datetime is clock


def test_a_template_takes_its_arguments(tokenizer):
    assert text(tokenizer, THINKING) == text(tokenizer, THINKING, enable_thinking=True) == "when now"
    assert text(tokenizer, THINKING, enable_thinking=False) == "when now <think></think>"
    with pytest.raises(
        UserError, match=r"its chat template knows no enable_thinkng; correct model\.chat_template_kwargs"
    ):
        text(tokenizer, THINKING, enable_thinkng=False)


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{{ raise_exception('a system message is needed') }}", "a system message is needed"),
        ("{{ messages[0]['content'] ", "unexpected end of template"),
        ("{{ messages[3]['content'] }}", "has no element 3"),
        ("{{ messages[0]['content'] + 1 }}", "can only concatenate"),
        ("{{ messages[0]['nothing'].strip() }}", "nothing"),
    ],
)
def test_a_template_that_fails_is_one_line(tokenizer, template, cause):
    with pytest.raises(UserError, match=f"its chat template fails on one message of a user.*{cause}") as caught:
        text(tokenizer, template)
    assert "\n" not in str(caught.value)


def test_arguments_are_params_of_the_model_and_part_of_what_identifies_a_stream():
    plain, chosen = (
        ModelParams(**PARAMS, **more) for more in ({}, {"chat_template_kwargs": {"enable_thinking": False}})
    )
    assert "chat_template_kwargs" not in extract.settings(
        plain
    )  # streams made before there were any stay what they are
    assert extract.settings(chosen)["chat_template_kwargs"] == {"enable_thinking": False}
    assert yaml.safe_load(yaml.safe_dump(extract.settings(chosen))) == extract.settings(chosen)
    with pytest.raises(UserError, match="tokenize: no argument of a template; delete it"):
        parse(ModelParams, PARAMS | {"chat_template_kwargs": {"tokenize": True}}, "model")
