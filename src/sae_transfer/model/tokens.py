"""Prompts as token ids, and the token of each at which the residual stream is read. Takes a tokenizer, imports none.

`position: last` is the last token that the model sees; `last_content` the token that holds the last visible character
of the prompt itself, before what a chat template or an encoder appends:

| tokenizer                  | `last`                                    | `last_content`                  |
|----------------------------|-------------------------------------------|---------------------------------|
| Gemma, chat                | the line break after <start_of_turn>model | the token before <end_of_turn>  |
| Llama 3, chat              | the line breaks after the answer's header | the token before <|eot_id|>     |
| Gemma, Llama, GPT-2, plain | the prompt's last token                   | the same, but never white space |
| BERT                       | [SEP]                                     | the token before [SEP]          |
| word-level (the demo)      | the prompt's last word                    | the same                        |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_transfer.core.errors import UserError
from sae_transfer.model.model_params import ModelParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MARK = "\N{SECTION SIGN}"  # stands for a prompt where a chat template is asked what it puts around one
TODAY = "26 Jul 2024"  # Llama's templates name a date: the same every day, or a prompt would change overnight


@dataclass(frozen=True, slots=True)
class Tokens:
    """The prompts as the model sees them, in their order, and what a reader of the results should know of them.

    `at` is the index in `ids` of the token where the stream is read; `chat` counts the prompts in a chat template.
    """

    ids: list[list[int]]
    at: list[int]
    adds_bos: bool
    chat: int
    unknown: int
    truncated: int


def tokenise(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    params: ModelParams,
    chat: Sequence[bool] | None = None,
) -> Tokens:
    """The prompts' token ids: special tokens from the tokenizer or, with a chat template, from the template alone.

    `chat` [n] says of each prompt whether it goes through the chat template; by default `params.chat_template` does.
    A prompt that `truncate` cuts keeps its first special token (BOS, CLS) and its end, where the stream is read.

    Raises:
        UserError: as `residual_stream`, naming the row.
    """
    if empty := [row for row, prompt in enumerate(prompts) if not prompt.strip()]:
        raise UserError(f"row {empty[0]}: empty prompt; every prompt needs text")
    in_chat = [params.chat_template] * len(prompts) if chat is None else [bool(each) for each in chat]
    ids, from_end = _encoded(tokenizer, prompts, in_chat, params)
    bos, unknown = tokenizer.bos_token_id, tokenizer.unk_token_id
    if params.prepend_bos:
        if bos is None:
            raise UserError(f"model {tokenizer.name_or_path}: its tokenizer has no BOS; set model.prepend_bos: false")
        ids = [row if row[:1] == [bos] else [bos, *row] for row in ids]
    adds_bos = bos is not None and (params.prepend_bos or _encode(tokenizer, ["a"], special=True)[0][:1] == [bos])
    if adds_bos:
        _check_bos(ids, bos)
    # Tokenizers without unknown words, such as GPT-2's, name a token of another meaning.
    ambiguous = unknown is None or unknown in (bos, tokenizer.eos_token_id)
    n_unknown = 0 if ambiguous else sum(row.count(unknown) for row in ids)
    _check_vocabulary(model, ids)
    limit = min(getattr(model.config, "max_position_embeddings", None) or 10**30, tokenizer.model_max_length)
    ids, truncated = _fit(ids, limit, {bos, tokenizer.cls_token_id}, params.truncate)
    at = [len(row) - back for row, back in zip(ids, from_end, strict=True)]
    return Tokens(ids, at, adds_bos, sum(in_chat), n_unknown, truncated)


def _encoded(
    tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], in_chat: Sequence[bool], params: ModelParams
) -> tuple[list[list[int]], list[int]]:
    """Token ids of every prompt, and how many tokens from the end of each the stream is read: 1 is the last."""
    ids: list[list[int]] = [[] for _ in prompts]
    from_end = [1] * len(prompts)
    for as_chat in sorted(set(in_chat)):
        rows = [row for row, each in enumerate(in_chat) if each == as_chat]
        plain = [prompts[row] for row in rows]
        texts, ends = _chat(tokenizer, plain) if as_chat else (plain, [len(text.rstrip()) for text in plain])
        # Chat templates write BOS as text; the tokenizer would add a second one.
        for row, tokens in zip(rows, _encode(tokenizer, texts, special=not as_chat), strict=True):
            ids[row] = tokens
        if params.position == "last_content":
            spans = _spans(tokenizer, texts, special=not as_chat)
            for row, where, end in zip(rows, spans, ends, strict=True):
                from_end[row] = len(where) - max(i for i, (start, stop) in enumerate(where) if start < min(end, stop))
    return ids, from_end


def _chat(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str]) -> tuple[list[str], list[int]]:
    """The prompts in the chat template, and where in each text the prompt's own characters end.

    Raises:
        UserError: there is no template, or it changes the prompts.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"model {tokenizer.name_or_path}: no chat template; set model.chat_template: false, and take only prompt "
            "templates that ask for none"
        )
    texts = [_render_chat(tokenizer, prompt) for prompt in prompts]
    closing = len(_render_chat(tokenizer, MARK).rpartition(MARK)[2])
    ends = [len(text[: len(text) - closing].rstrip()) for text in texts]
    for row, (prompt, text, end) in enumerate(zip(prompts, texts, ends, strict=True)):
        if not text[:end].endswith(prompt.strip()):
            raise UserError(f"row {row}: the chat template changes the prompt; set model.chat_template: false")
    return texts, ends


def _render_chat(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, date_string=TODAY))


def _encode(tokenizer: "PreTrainedTokenizerBase", texts: list[str], special: bool) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(
        texts, add_special_tokens=special, padding=False, truncation=False, return_attention_mask=False, verbose=False
    )
    return [list(ids) for ids in encoded["input_ids"]]


def _spans(tokenizer: "PreTrainedTokenizerBase", texts: list[str], special: bool) -> list[list[tuple[int, int]]]:
    """The characters [start, stop) of each text that each of its tokens stands for."""
    if not tokenizer.is_fast:
        raise UserError(
            f"model {tokenizer.name_or_path}: its tokenizer does not tell which characters a token stands for; "
            "set model.position: last"
        )
    encoded = tokenizer(
        texts, add_special_tokens=special, padding=False, truncation=False, return_offsets_mapping=True, verbose=False
    )
    return [list(spans) for spans in encoded["offset_mapping"]]


def _check_bos(ids: list[list[int]], bos: int) -> None:
    for row, tokens in enumerate(ids):
        if tokens.count(bos) != 1 or tokens[0] != bos:
            raise UserError(
                f"row {row}: {tokens.count(bos)} BOS tokens where the model expects one, at the start; "
                "correct the chat template, or remove the token's text from the prompt"
            )


def _check_vocabulary(model: "PreTrainedModel", ids: list[list[int]]) -> None:
    size = model.get_input_embeddings().num_embeddings
    highest = max((max(tokens) for tokens in ids), default=0)
    if highest >= size:
        raise UserError(f"token {highest}: beyond the model's {size} embeddings; the tokenizer is another model's")


def _fit(ids: list[list[int]], limit: int, first: set[int | None], truncate: bool) -> tuple[list[list[int]], int]:
    """The token ids within the model's context, and how many prompts were cut for it."""
    long = [row for row, tokens in enumerate(ids) if len(tokens) > limit]
    if long and not truncate:
        raise UserError(
            f"row {long[0]}: {len(ids[long[0]])} tokens, the model's context has {limit} "
            f"({len(long)} such rows); shorten the prompt or set model.truncate: true"
        )
    fitted = list(ids)
    for row in long:
        head = ids[row][:1] if ids[row][0] in first else []
        fitted[row] = head + ids[row][len(ids[row]) - limit + len(head) :]
    return fitted, len(long)
