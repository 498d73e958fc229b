"""How many tokens a dataset's prompts have, by the model's tokenizer alone."""

from collections.abc import Sequence

import numpy as np

from sae_transfer.data.overview import LAST, UNLIMITED, CountTokens, TokenCounts
from sae_transfer.model import loading, tokens
from sae_transfer.model.model_params import ModelParams


def counter(params: ModelParams) -> CountTokens:
    """Counts the tokens of prompts with the model's tokenizer, special tokens and chat template included; no weights.

    Raises:
        UserError: the tokenizer or the configuration cannot be had (why, and what to do).
    """
    model, tokenizer = loading.load_skeleton(params)
    context = min(tokens.context(model, tokenizer), UNLIMITED)

    def count(texts: Sequence[str], chat: Sequence[bool | None]) -> tuple[TokenCounts, list[list[str]]]:
        in_chat = [params.chat_template if each is None else each for each in chat]
        found = tokens.counted(model, tokenizer, texts, params, in_chat, UNLIMITED)  # none is cut
        lengths = np.array([len(ids) for ids in found.ids])
        beyond = int((lengths > context).sum())
        read = [list(ids[max(at - LAST + 1, 0) : at + 1]) for ids, at in zip(found.ids, found.at, strict=True)]
        return TokenCounts(
            float(np.median(lengths)), int(lengths.max()), context, beyond, int(lengths.sum()), found.unknown
        ), [tokenizer.convert_ids_to_tokens(ids) for ids in read]

    return count
