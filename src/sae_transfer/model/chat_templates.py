"""Prompts in a model's chat template, the same every day. Takes a tokenizer, imports none."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sae_transfer.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "\N{SECTION SIGN}"  # stands for a prompt where a chat template is asked what it puts around one
TODAY = datetime(2024, 7, 26)  # templates name a date: the same every day, or a prompt would change overnight


def rendered(
    tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], arguments: Mapping[str, Any]
) -> tuple[list[str], list[int]]:
    """The prompts in the chat template, and where in each text the prompt's own characters end.

    Args:
        tokenizer: whose template it is.
        prompts: each becomes the one message of a user.
        arguments: `model.chat_template_kwargs`, names that the template knows (`enable_thinking`).

    Raises:
        UserError: there is no template; it fails, changes the prompts, or does not know an argument.
    """
    where = f"model {tokenizer.name_or_path}"
    if not tokenizer.chat_template:
        raise UserError(
            f"{where}: no chat template; set model.chat_template: false, and take only prompt templates that ask for "
            "none"
        )
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    for name in arguments:
        if template and not re.search(rf"\b{re.escape(name)}\b", template):
            raise UserError(f"{where}: its chat template knows no {name}; correct model.chat_template_kwargs")
    texts = [_render(tokenizer, prompt, arguments) for prompt in prompts]
    closing = len(_render(tokenizer, MARK, arguments).rpartition(MARK)[2])
    ends = [len(text[: len(text) - closing].rstrip()) for text in texts]
    for row, (prompt, text, end) in enumerate(zip(prompts, texts, ends, strict=True)):
        if not text[:end].endswith(prompt.strip()):
            raise UserError(f"row {row}: the chat template changes the prompt; set model.chat_template: false")
    return texts, ends


def _render(tokenizer: "PreTrainedTokenizerBase", prompt: str, arguments: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError

    messages = [{"role": "user", "content": prompt}]
    options = {"date_string": TODAY.strftime("%d %b %Y")} | dict(arguments)
    try:
        with _one_day():
            return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options))
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"model {tokenizer.name_or_path}: its chat template fails on one message of a user ({cause}); "
            "set model.chat_template: false"
        ) from error


@contextmanager
def _one_day() -> Iterator[None]:
    """Within the block, the `strftime_now` of templates is `TODAY`: transformers takes it from its module's clock."""
    from transformers.utils import chat_template_utils

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Clock":
            return cls(TODAY.year, TODAY.month, TODAY.day, tzinfo=tz)

    clock = chat_template_utils.datetime
    chat_template_utils.datetime = Clock
    try:
        yield
    finally:
        chat_template_utils.datetime = clock
