"""The model's own judgement: how likely it is to begin an abstaining answer. No training, no probe."""

import inspect
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import ParamsSection
from sae_transfer.model.invariance import LIMIT
from sae_transfer.model.model_params import ModelParams
from sae_transfer.model.tokens import tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGIT_BYTES = 256 * 2**20  # of one batch's logits in float32


class VerbalParams(ParamsSection):
    """Section `verbal` of the params: how abstaining answers begin. An empty list leaves the stage out."""

    abstaining: tuple[str, ...] = ()


def first_tokens(tokenizer: "PreTrainedTokenizerBase", answers: Sequence[str]) -> list[int]:
    """The ids of the answers' first tokens, each answer written as it is and after a space, rising.

    Raises:
        UserError: an answer without text, or one that begins with a word unknown to the tokenizer.
    """
    ids = set()
    for answer in answers:
        if not answer.strip():
            raise UserError("params.yaml: verbal.abstaining has an empty string; remove it")
        for text in (answer.strip(), f" {answer.strip()}"):
            first = tokenizer(text, add_special_tokens=False)["input_ids"][0]
            if first == tokenizer.unk_token_id and first not in (tokenizer.bos_token_id, tokenizer.eos_token_id):
                raise UserError(f"params.yaml: verbal.abstaining: the model's tokenizer does not know '{answer}'")
            if tokenizer.decode([first]).strip():  # some tokenizers give the space a token of its own
                ids.add(int(first))
    return sorted(ids)


def answering_log_odds(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    abstaining: Sequence[int],
    params: ModelParams,
    chat: Sequence[bool] | None = None,
) -> NDArray[np.float64]:
    """log((1 - p) / p) for each of n prompts, p the probability that the next token is an abstaining one.

    `chat` says which prompts enter the chat template, by default as the params do. Prompts of one length run together,
    so that no position but the last needs logits, and nothing is padded. What a tokenizer appends (EOS) is left out.

    Raises:
        UserError: as `tokenise`; the model sees later words, so that it has no next one; logits that are not finite.
    """
    import torch

    found = tokenise(model, tokenizer, prompts, params.model_copy(update={"position": "last"}), chat)
    ids = [row[: at + 1] for row, at in zip(found.ids, found.at, strict=True)]
    vocabulary = len(model.get_input_embeddings().weight)
    odds = np.empty(len(ids))
    with torch.inference_mode():
        _check_causal(model, min(ids, key=len), params)
        for rows in _of_one_length(ids, params.tokens_per_batch, max(1, LOGIT_BYTES // (4 * vocabulary))):
            logits = _next_logits(model, [ids[row] for row in rows]).double()
            if not bool(torch.isfinite(logits).all()):
                raise UserError(f"row {rows[0]}: NaN or infinity in the model's logits; set model.dtype: float32")
            silent = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            silent[list(abstaining)] = True
            answering, refusing = (torch.logsumexp(logits[:, part], dim=1) for part in (~silent, silent))
            odds[rows] = (answering - refusing).cpu().numpy()
    return odds


def _next_logits(model: "PreTrainedModel", ids: Sequence[Sequence[int]]) -> Any:
    """Logits [n, vocabulary] of the token after each of n prompts of one length."""
    import torch

    tokens = torch.tensor(ids, device=model.device)
    few = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    return model(input_ids=tokens, **few).logits[:, -1]


def _check_causal(model: "PreTrainedModel", ids: Sequence[int], params: ModelParams) -> None:
    """Refuses a model whose logits after a prompt change with what follows it: BERT has no next word."""
    import torch

    tokens = torch.tensor([[*ids, ids[-1]], [*ids, ids[0]]], device=model.device)
    before, after = model(input_ids=tokens).logits[:, len(ids) - 1].double()
    if float((before - after).norm() / before.norm()) > LIMIT[params.dtype]:
        raise UserError(
            f"model {params.name}: not supported: {type(model).__name__} sees later words, so its next word means "
            "nothing; set verbal.abstaining: []"
        )


def _of_one_length(ids: Sequence[Sequence[int]], tokens_per_batch: int, most: int) -> Iterator[list[int]]:
    """Rows in batches of equal length, the longest first."""
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    for length, same in groupby(order, key=lambda row: len(ids[row])):
        rows, size = list(same), max(1, min(tokens_per_batch // length, most))
        yield from (rows[start : start + size] for start in range(0, len(rows), size))
