"""Prompts as token ids, and the token of each at which the residual stream is read. Takes a tokenizer, imports none.

`position: last` is the last token that the model sees before what the tokenizer itself appends (EOS); an encoder is
read at its closing [SEP], which sums up the prompt. `last_content` is the token that holds the last visible character
of the prompt itself, before what a chat template or an encoder appends:

| tokenizer                  | `last`                                    | `last_content`                  |
|----------------------------|-------------------------------------------|---------------------------------|
| Gemma, chat                | the line break after <start_of_turn>model | the token before <end_of_turn>  |
| Llama 3, chat              | the line breaks after the answer's header | the token before <|eot_id|>     |
| Gemma, Llama, GPT-2, plain | the prompt's last token                   | the same, but never white space |
| a decoder that appends EOS | the token before EOS                      | the same, but never white space |
| BERT                       | [SEP]                                     | the token before [SEP]          |
| word-level (the demo)      | the prompt's last word                    | the same                        |

Ids are compared with the model's own tokenizer.json on every prompt, and prompts that cannot be told apart, unknown
words and control tokens written in a text are refused.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sae_transfer.core.errors import UserError
from sae_transfer.model import chat_templates, tokenizer_files
from sae_transfer.model.model_params import ModelParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_UNKNOWN = 0.1  # share of the prompts' tokens


@dataclass(frozen=True, slots=True)
class Tokens:
    """The prompts as the model sees them, in their order, and what a reader of the results should know of them.

    `at` is the index in `ids` of the token where the stream is read; `chat` counts the prompts in a chat template.
    `has_bos` says whether the tokenizer has a BOS at all.
    """

    ids: list[list[int]]
    at: list[int]
    adds_bos: bool
    chat: int
    unknown: int
    truncated: int
    has_bos: bool = True


def tokenise(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    params: ModelParams,
    chat: Sequence[bool] | None = None,
) -> Tokens:
    """`counted`, and refuses prompts of which the model would not see what they say.

    Raises:
        UserError: as `counted`; more than `MAX_UNKNOWN` of the tokens are unknown, or as many characters are dropped; a
            control token comes from a prompt's text; prompts of different text have equal ids, also once they are cut.
    """
    found = counted(model, tokenizer, prompts, params, chat)
    bare = _encode(tokenizer, list(prompts), special=False)
    _check_control_tokens(tokenizer, prompts, bare)
    _check_unknown(tokenizer, prompts, bare)
    _check_distinct(prompts, bare, "different prompts have the same tokens")
    if found.truncated:
        _check_distinct(prompts, found.ids, "different prompts have the same tokens once they are cut")
    return found


def counted(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    params: ModelParams,
    chat: Sequence[bool] | None = None,
    limit: int | None = None,
) -> Tokens:
    """The prompts' token ids: special tokens from the tokenizer or, with a chat template, from the template alone.

    `chat` [n] says of each prompt whether it goes through the chat template; by default `params.chat_template` does.
    A prompt that `truncate` cuts keeps its first special token (BOS, CLS) and its end, where the stream is read. The
    limit in tokens is the model's own `context` unless given.

    Raises:
        UserError: a prompt is empty, no text, or too long; it has more or less than one BOS; the tokenizer disagrees
            with its tokenizer.json; the chat template fails or changes a prompt.
    """
    for row, prompt in enumerate(prompts):
        if not prompt.strip():
            raise UserError(f"row {row}: empty prompt; every prompt needs text")
        if not prompt.isascii() and any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise UserError(f"row {row}: half of a character (a lone surrogate) in the prompt; correct the text")
    in_chat = [params.chat_template] * len(prompts) if chat is None else [bool(each) for each in chat]
    ids, from_end = _encoded(model, tokenizer, prompts, in_chat, params)
    bos, unknown = tokenizer.bos_token_id, _unknown_id(tokenizer)
    if params.prepend_bos:
        if bos is None:
            raise UserError(f"model {tokenizer.name_or_path}: its tokenizer has no BOS; set model.prepend_bos: false")
        ids = [row if row[:1] == [bos] else [bos, *row] for row in ids]
    adds_bos = bos is not None and (params.prepend_bos or _around(tokenizer)[0][:1] == [bos])
    if adds_bos:
        _check_bos(ids, bos, in_chat)
    n_unknown = 0 if unknown is None else sum(row.count(unknown) for row in ids)
    _check_vocabulary(model, ids)
    ids, truncated = _fit(ids, limit or context(model, tokenizer), {bos, tokenizer.cls_token_id}, params.truncate)
    at = [len(row) - back for row, back in zip(ids, from_end, strict=True)]
    return Tokens(ids, at, adds_bos, sum(in_chat), n_unknown, truncated, bos is not None)


def context(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """The longest prompt in tokens.

    RoBERTa and its kin count positions from after the padding's, so that two of 514 are no token's.
    """
    said = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    limits = [said if said > 0 else 10**30, tokenizer.model_max_length]  # XLNet's -1 is none
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            limits.append(len(module.weight) - padding - 1)
    return int(min(limits))


def _unknown_id(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The token of unknown words; some tokenizers without unknown words, such as GPT-2's, name one of other meaning."""
    unknown = tokenizer.unk_token_id
    return None if unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id) else unknown


def _encoded(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    in_chat: Sequence[bool],
    params: ModelParams,
) -> tuple[list[list[int]], list[int]]:
    """Token ids of every prompt, and how many tokens from the end of each the stream is read: 1 is the last."""
    ids: list[list[int]] = [[] for _ in prompts]
    from_end = [1] * len(prompts)
    for as_chat in sorted(set(in_chat)):
        rows = [row for row, each in enumerate(in_chat) if each == as_chat]
        texts, ends = [prompts[row] for row in rows], [len(prompts[row].rstrip()) for row in rows]
        if as_chat:
            texts, ends = chat_templates.rendered(tokenizer, texts, params.chat_template_kwargs)
        # Chat templates write BOS as text; the tokenizer would add a second one.
        encoded = _encode(tokenizer, texts, special=not as_chat)
        if wrong := tokenizer_files.differing(tokenizer, texts, encoded, special=not as_chat):
            raise UserError(
                f"row {rows[wrong[0]]}: {type(tokenizer).__name__} gives other tokens than tokenizer.json "
                f"({len(wrong)} such rows); correct tokenizer_class in tokenizer_config.json"
            )
        appended = 0 if as_chat or is_encoder(model) else len(_around(tokenizer)[1])
        for row, tokens in zip(rows, encoded, strict=True):
            ids[row], from_end[row] = tokens, 1 + appended
        if params.position == "last_content":
            spans = _spans(tokenizer, texts, special=not as_chat)
            for row, where, end in zip(rows, spans, ends, strict=True):
                from_end[row] = len(where) - max(i for i, (start, stop) in enumerate(where) if start < min(end, stop))
    return ids, from_end


def is_encoder(model: "PreTrainedModel") -> bool:
    """Whether the model is one that fills gaps, as BERT does, and not one that continues a text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    config = model.config.get_text_config()
    return type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)


def _around(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before and after every text."""
    whole, bare = (_encode(tokenizer, ["a"], special=special)[0] for special in (True, False))
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def _encode(tokenizer: "PreTrainedTokenizerBase", texts: list[str], special: bool) -> list[list[int]]:
    if not texts:
        return []
    try:
        encoded = tokenizer(
            texts,
            add_special_tokens=special,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
    except Exception as error:  # the tokenizers library raises no narrower one
        raise UserError(f"model {tokenizer.name_or_path}: its tokenizer fails on the prompts ({error})") from error
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


def _check_control_tokens(
    tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], bare: Sequence[Sequence[int]]
) -> None:
    """Refuses prompts whose own text becomes a token that steers the model: EOS, padding, the turns of a chat."""
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    roles = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
    named = {getattr(tokenizer, role) for role in roles} - {None, _unknown_id(tokenizer)}
    added: Mapping[int, Any] = tokenizer.added_tokens_decoder
    written = {token: each.content.strip() for token, each in added.items() if each.special or each.content in template}
    control = named | {token for token, text in written.items() if text}
    for row, (prompt, ids) in enumerate(zip(prompts, bare, strict=True)):
        # Bytes that stand for unknown letters count as special in some files; no text spells them.
        found = [token for token in ids if token in control and (token in named or written[token] in prompt)]
        if found:
            raise UserError(
                f"row {row}: the prompt's text becomes the control token {tokenizer.convert_ids_to_tokens(found[0])}; "
                "remove it from the text"
            )


def _check_unknown(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], bare: Sequence[Sequence[int]]) -> None:
    """Refuses prompts of which the tokenizer knows too little. One without unknown words drops what it lacks."""
    if empty := [row for row, ids in enumerate(bare) if not ids]:
        raise UserError(f"row {empty[0]}: no token for any of its text; the tokenizer is of other texts than these")
    unknown = _unknown_id(tokenizer)
    if unknown is not None:
        n, total, what = sum(list(ids).count(unknown) for ids in bare), sum(map(len, bare)), "tokens are unknown"
    elif tokenizer.is_fast:
        spans = _spans(tokenizer, list(prompts), special=False)
        n = sum(_dropped(text, where) for text, where in zip(prompts, spans, strict=True))
        total, what = sum(map(len, prompts)), "characters have no token"
    else:
        return
    if n > MAX_UNKNOWN * total:
        raise UserError(
            f"model {tokenizer.name_or_path}: {n / total:.0%} of the prompts' {what} (at most {MAX_UNKNOWN:.0%}); "
            "the tokenizer is of other texts than these"
        )


def _dropped(text: str, spans: Sequence[tuple[int, int]]) -> int:
    """How many visible characters of a text are in no token's span."""
    n, end = 0, 0
    for start, stop in spans:
        if start > end:
            n += len(text[end:start].strip())
        end = max(end, stop)
    return n + len(text[end:].strip())


def _check_distinct(prompts: Sequence[str], tokens: Sequence[Sequence[int]], what: str) -> None:
    """Refuses prompts of different text with equal ids. Case, accents and white space are a tokenizer's to drop."""
    first: dict[tuple[int, ...], int] = {}
    for row, ids in enumerate(tokens):
        other = first.setdefault(tuple(ids), row)
        if prompts[other] != prompts[row] and _letters(prompts[other]) != _letters(prompts[row]):
            raise UserError(
                f"rows {other} and {row}: {what}, so the model cannot tell them apart; "
                "shorten them, or choose a model of such texts"
            )


def _letters(text: str) -> str:
    """A text without case, accents, invisible characters and any amount of white space."""
    kept = (each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    visible = "".join(each if each.isspace() or unicodedata.category(each)[0] != "C" else "" for each in kept)
    return " ".join(visible.casefold().split())


def _check_bos(ids: list[list[int]], bos: int, in_chat: Sequence[bool]) -> None:
    for row, tokens in enumerate(ids):
        if tokens.count(bos) != 1 or tokens[0] != bos:
            n = tokens.count(bos)
            if n == 0:
                remedy = "set model.prepend_bos: true, or model.chat_template: false (the chat template writes none)"
            else:
                remedy = "correct the chat template" if in_chat[row] else "remove the token's text from the prompt"
            raise UserError(f"row {row}: {n} BOS tokens where the model expects one, at the start; {remedy}")


def _check_vocabulary(model: "PreTrainedModel", ids: list[list[int]]) -> None:
    size = len(model.get_input_embeddings().weight)
    highest = max((max(tokens, default=0) for tokens in ids), default=0)
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
